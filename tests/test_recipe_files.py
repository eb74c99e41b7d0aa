"""Recipe files: what they can say, and what their errors tell."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from unicodedata import normalize

import pytest
from jsonschema import Draft202012Validator
from pydantic import AfterValidator

from flowkit.errors import DefinitionError, RecipeFileError, ToolArgumentsError
from flowkit.models.scripted import ScriptedModel
from flowkit.recipes import Recipe, each, recipe, step
from flowkit.recipes.files import load_recipe, read_recipe
from flowkit.recipes.format import read_format
from flowkit.tools import Tool, tool


@tool(effect="read")
def get_order(order_id: str) -> dict[str, Any]:
    """Find an order."""
    return {"id": order_id, "address": {"city": "Busan"}, "items": [{"sku": "p1", "count": 2}], "status": "paid"}


@tool(effect="read")
def quote(city: str, count: int = 1) -> int:
    """Quote the shipping."""
    return 3000 * count + len(city)


@tool
def cancel(order_id: str) -> str:
    """Cancel an order."""
    return f"cancelled {order_id}"


TOOLS = (get_order, quote, cancel)
FILE = """\
recipe: order_support
description: Status and shipping of an order.
inputs:
  order_id: {type: string, minLength: 1}
  limit: {type: integer, default: 3}
steps:
  quotes:
    each: ${{ steps.order.items }}
    do:
      tool: quote
      with:
        city: ${{ steps.order.address.city }}
        count: ${{ item.count }}
    key: ${{ item.sku }}
    at_once: 2
  order:
    tool: get_order
    with: {order_id: "${{ inputs.order_id }}"}
    retries: 2
    timeout: 5
  back:
    when:
      all:
        - {value: "${{ steps.order.status }}", is_in: [paid, sent]}
        - not: {value: "${{ inputs.limit }}", less_than: 2}
    then: {tool: cancel, with: {order_id: "${{ steps.order.id }}"}}
    otherwise: {value: kept}
output:
  city: ${{ steps.order.address.city }}
  quotes: ${{ steps.quotes }}
  back: ${{ steps.back }}
  price: $${{ not an expression }}
"""


def load(text: str, models: Mapping[str, ScriptedModel] | None = None) -> Recipe[..., Any]:
    return read_recipe(text.encode(), "support.yaml", tools=TOOLS, models=models)


def test_file_runs() -> None:
    result = load(FILE).run_sync(order_id="o-1")
    assert result.output == {
        "city": "Busan",
        "quotes": [6005],
        "back": "cancelled o-1",
        "price": "${{ not an expression }}",
    }
    assert "quotes/p1/quote" in {call.call.id for call in result.calls}


KOREAN = """
recipe: 주문_안내
inputs:
  상품: {type: string}
steps:
  견적: {tool: quote, with: {city: "${{ inputs.상품 }}", count: 2}}
  둘째: {tool: quote, with: {city: "${{ inputs.상품 }}", count: "${{ steps.견적 }}"}}
output: {값: "${{ steps.견적 }}", 더: "${{ steps.둘째 }}"}
"""


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_may_be_of_any_script_composed_or_not(form: Literal["NFC", "NFD"]) -> None:
    loaded = load(normalize(form, KOREAN))
    assert list(loaded.graph()) == ["견적", "둘째"]
    assert load(loaded.to_yaml()).plan.body == loaded.plan.body
    assert set(loaded.run_sync(상품="b").output) == {"값", "더"}


@pytest.mark.parametrize("name", ["has space", "2nd", "전각 공백", "a—b", "-a", "", "a/b"])
def test_what_is_no_name_in_any_script_is_refused(name: str) -> None:
    with pytest.raises(RecipeFileError, match="isn't a name"):
        load(f"recipe: {json.dumps(name)}\nsteps: {{a: {{tool: quote, with: {{city: b}}}}}}")


def test_a_text_that_is_not_composed_is_written_so_that_it_stays_so() -> None:
    @recipe
    def keep() -> int:
        return step(quote, normalize("NFD", "찻잔"), count=1)

    assert load(keep.to_yaml()).plan.body == keep.plan.body


def test_steps_may_stand_in_any_order() -> None:
    assert list(load(FILE).graph()) == ["order", "quotes", "back"]


def test_load_recipe_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "support.yaml"
    path.write_text(FILE, encoding="utf-8")
    assert load_recipe(path, tools=TOOLS).name == "order_support"
    with pytest.raises(RecipeFileError, match=r"missing\.yaml: can't be read"):
        load_recipe(tmp_path / "missing.yaml", tools=TOOLS)


def test_inputs_are_checked_by_their_schema() -> None:
    with pytest.raises(ToolArgumentsError, match="limit"):
        load(FILE).read_inputs({"order_id": "x", "limit": "many"})
    assert load(FILE).read_inputs({"order_id": "x"}) == {"order_id": "x", "limit": 3}


def test_output_is_checked_by_its_schema() -> None:
    with pytest.raises(Exception, match="its output at city doesn't fit"):
        load(FILE + "returns: {type: object, properties: {city: {type: integer}}}\n").run_sync(order_id="o-1")


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("timeout: 5", "timout: 5", "20:5", "steps.order: unknown key 'timout'; did you mean 'timeout'?"),
        (
            "tool: quote",
            "tool: qoute",
            "10:13",
            "steps.quotes.do.tool: there is no tool 'qoute'; did you mean 'quote'?",
        ),
        ("steps.order.id", "steps.ordr.id", "26:43", "there is no step 'ordr' here; did you mean 'order'?"),
        ("inputs.order_id", "inputs.order", "18:22", "inputs: it has no 'order'; did you mean 'order_id'?"),
        ("count: ${{ item.count }}", "cuont: 3", "13:16", "unexpected argument 'cuont'"),
        ("count: ${{ item.count }}", "count: many", "13:16", "'count' is 'many', expected an integer"),
        ("retries: 2", "retries: -2", "19:14", "steps.order.retries: is -2, at least 0"),
        ("less_than: 2", "lessthan: 2", "25:47", "unknown key 'lessthan'; did you mean 'less_than'?"),
        ("at_once: 2", "on_error: never", "15:15", "'never' isn't known"),
        ("{value: kept}", "{tool: quote, with: {}}", "27:30", "'city' is missing"),
        ("limit: {type: integer, default: 3}", "limit: {type: intger}", "5:17", "not a JSON Schema"),
        ("limit: {type: integer, default: 3}", "limit: {type: integer, default: x}", "5:35", "'x' is not of type"),
        ("limit: {type: integer, default: 3}", "limit: {$ref: 'https://example.org/x'}", "4:3", "isn't in this file"),
        ("limit: {type: integer, default: 3}", "limit: {pattern: '('}", "5:20", "not a JSON Schema"),
        ("limit: {type: integer, default: 3}", "limit: {$id: 'https://example.org/x'}", "4:3", "isn't in this file"),
        ("steps.order.items", "steps.quotes", "7:3", "a circle"),
        ("steps.order.items", "item", "8:11", "a reference begins with inputs.name, steps.name; found 'item'"),
        ("${{ item.sku }}", "id-${{ item.sku }}", "14:10", "an expression has to be the whole value"),
        ("recipe: order_support", "recipe: [a]", "1:9", "recipe: expected text, found a list"),
        (
            'order_id: "${{ inputs.order_id }}"',
            'order_id: "${{ inputs.limit }}"',
            "18:22",
            "this is integer, expected string",
        ),
        ("key: ${{ item.sku }}", "retries: 1", "14:5", "steps.quotes: unknown key 'retries'"),
    ],
)
def test_error_tells_place_key_and_what_was_expected(
    old: str, new: str, place: str | None, message: str | None
) -> None:
    assert old in FILE
    if place is None or message is None:
        assert load(FILE.replace(old, new)).name == "order_support"  # the tool's result may have any key
        return
    with pytest.raises(RecipeFileError) as caught:
        load(FILE.replace(old, new, 1))
    assert str(caught.value).startswith(f"support.yaml:{place}: ")
    assert message in str(caught.value)


MANY_WRONG = """
recipe: many
inputs:
  city: {type: string}
steps:
  a:
    tool: qoute
  b:
    tool: quote
    with: {city: "${{ inputs.town }}", count: "${{ steps.z }}"}
  c:
    tool: quote
    wth: {city: x}
    timeout: soon
  d:
    each: [1, 2]
    do:
      steps:
        one: {tool: quote, with: {city: x, count: many}}
        two: {tool: nothing}
  e:
    when: {value: "${{ inputs.city }}", equals: x}
    then: {tool: quote, with: {city: x}}
  f:
    tool: quote
    with: {city: "${{ steps.e }}"}
output: ${{ steps.y }}
"""


def test_all_errors_of_a_file_are_told_at_once_from_the_top() -> None:
    with pytest.raises(RecipeFileError) as caught:
        load(MANY_WRONG)

    lines = str(caught.value).splitlines()
    assert [line.split(": ", 2)[1] for line in lines] == [
        "steps.a.tool",
        "steps.b.with.city",
        "steps.b.with.count",
        "steps.c",
        "steps.c.timeout",
        "steps.d.do.steps.one.with.count",
        "steps.d.do.steps.two.tool",
        "steps.f",
        "output",
    ]
    assert [str(error) for error in caught.value.errors] == lines
    assert caught.value.line == caught.value.errors[0].line == 7


@pytest.mark.parametrize(
    "text",
    [
        "recipe: !!python/object/apply:os.system ['touch /tmp/ran']\nsteps: {a: {tool: quote}}",
        "recipe: &a x\nsteps: *a",
        "a: b: c",
        "recipe: x\nrecipe: y",
        "[" * 200,
        "- 1\n- 2\n",
        "",
        "\x00",
    ],
)
def test_what_is_not_plain_data_is_refused(text: str) -> None:
    with pytest.raises(RecipeFileError) as caught:
        load(text)
    assert caught.value.line is not None


def test_texts_that_yaml_1_1_takes_for_other_things_stay_texts() -> None:
    text = "recipe: r\nsteps: {a: {tool: quote, with: {city: no}}}\noutput: [no, on, 12:30, 2024-01-01, 0x1F]\n"
    assert load(text).plan.body.value == ["no", "on", "12:30", "2024-01-01", "0x1F"]


def test_format_is_a_json_schema() -> None:
    cast(Any, Draft202012Validator).check_schema(read_format())
    assert json.loads(json.dumps(read_format()))["title"] == "flowkit recipe"


def test_hidden_outer_step_is_written_by_its_whole_id() -> None:
    @recipe
    def shadow(order_id: str) -> Any:
        first = step(quote, order_id)
        return each([1, 2], lambda number: [step(quote, "a", count=number), first])

    text = shadow.to_yaml()
    assert '${{ steps["/quote"] }}' in text
    assert load(text).plan.body == shadow.plan.body


def test_what_only_python_can_check_is_not_written() -> None:
    def check_even(number: int) -> int:
        return number

    @recipe(name="has space")
    def odd(number: Annotated[int, AfterValidator(check_even)]) -> int:
        return step(quote, "a", count=number)

    with pytest.raises(DefinitionError) as caught:
        odd.to_yaml()
    assert "its name 'has space'" in str(caught.value)
    assert "the input 'number' is checked by Python code (check_even)" in str(caught.value)


def test_file_asks_models_by_name() -> None:
    text = """\
recipe: judge
inputs: {note: string}
steps:
  verdict:
    ask: small
    prompt: Judge {note}.
    with: {note: "${{ inputs.note }}"}
    returns: {type: object, properties: {ok: {type: boolean}}, required: [ok]}
"""
    model = ScriptedModel([['{"ok": true}']])
    assert load(text, models={"small": model}).run_sync(note="fine").output == {"ok": True}
    with pytest.raises(RecipeFileError, match=r"5:10: steps\.verdict\.ask: there is no model 'small'; there is none"):
        load(text)
    with pytest.raises(RecipeFileError, match=r"6:13: .*the prompt names 'nte'; did you mean 'note'"):
        load(text.replace("{note}.", "{nte}."), models={"small": model})


def test_schema_that_refers_only_to_itself_is_refused() -> None:
    text = FILE.replace("limit: {type: integer, default: 3}", "limit: {$ref: '#/$defs/a', default: 3}")
    with pytest.raises(RecipeFileError, match="refers only to itself"):
        load(text + "$defs: {a: {$ref: '#/$defs/a'}}\n")


def test_page_on_recipe_files_shows_one_that_loads() -> None:
    page = Path(__file__).parent.parent / "docs" / "reference" / "recipe-file.md"
    text = page.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]

    def stand_in(arguments: dict[str, Any]) -> object:
        return arguments

    names = ("get_order", "quote_shipping", "search_products", "refund_order", "write_log")
    tools = [Tool.from_schema(name, "", {"type": "object"}, stand_in, effect="read") for name in names]
    loaded = read_recipe(text.encode(), "page.yaml", tools=tools, models={"small": ScriptedModel([])})
    assert list(loaded.graph())[-1] == "log"
    for key in read_format()["properties"]:
        assert f"`{key}`" in page.read_text(encoding="utf-8")
