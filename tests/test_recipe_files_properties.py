"""For every recipe: its file gives the same graph and the same result. For every edit of a file: an error or a recipe."""

from collections.abc import Callable
from typing import Any, cast

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from flowkit.errors import RecipeFileError, ToolError
from flowkit.models.scripted import ScriptedModel
from flowkit.recipes import (
    Recipe,
    RecipeResult,
    ask,
    each,
    finally_,
    is_in,
    is_none,
    recipe,
    step,
    when,
)
from flowkit.recipes.files import read_recipe
from flowkit.recipes.format import read_format
from flowkit.testing.loop import run_virtual
from flowkit.tools import tool
from tests.example_counts import examples

ran: list[str] = []
SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)


@tool(effect="read", retries=0)
async def measure(value: Any = None, other: Any = None) -> int:
    """Measure two values."""
    ran.append("measure")
    return len(repr(value)) + len(repr(other))


@tool(effect="read", retries=0)
async def split(text: Any) -> list[str]:
    """Split a text in letters."""
    return list(repr(text))[:3]


@tool(effect="idempotent")
async def refuse(value: Any = None) -> str:
    """Refuse every long value."""
    if len(repr(value)) > 3:
        raise ToolError("too long")
    return "short"


@recipe
def inner(text: str, more: int = 3) -> dict[str, int]:
    """Measure a text."""
    return {"size": step(measure, text, more), "more": more}


MODEL = ScriptedModel([], name="small")
TOOLS = (measure, split, refuse)
texts = st.text(max_size=6) | st.sampled_from(
    ["${{ inputs.text }}", "$${{", "\x85", "a\u2028b", "no", "1e5", "0o7", "~", "# x", "a: b", "'"]
)
literals = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 2**70) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda held: st.lists(held, max_size=3) | st.dictionaries(texts, held, max_size=2),
    max_leaves=4,
)
Draw = Callable[[st.SearchStrategy[Any]], Any]


class Grower:
    """Makes random steps with what is there: inputs, results and items."""

    def __init__(self, draw: Draw, values: list[Any]) -> None:
        self.draw = draw
        self.values = values

    def known(self, values: list[Any]) -> Any:
        """One of these; by its place, since what is drawn gets hashed."""
        return values[self.draw(st.integers(0, len(values) - 1))]

    def value(self) -> Any:
        return self.known(self.values) if self.draw(st.booleans()) else self.draw(literals)

    def condition(self) -> Any:
        left, right = self.known(self.values), self.value()
        match self.draw(st.integers(0, 5)):
            case 0:
                return left != right
            case 1:
                return is_none(left)
            case 2:
                return is_in(left, [right, self.draw(literals)])
            case 3:
                return (left == right) | is_none(left)
            case 4:
                return ~is_none(left) & (is_none(right) | (left == 1))
            case _:
                return left == right

    def steps(self, depth: int, count: int) -> Any:
        """Some steps; the value of the last, or several."""
        made = [self.step(depth) for _ in range(count)]
        self.values = [*self.values, *made]
        return made[-1] if self.draw(st.booleans()) else {"all": made}

    def body(self, depth: int, *more: Any) -> Any:
        inside = Grower(self.draw, [*self.values, *more])
        return inside.steps(depth - 1, self.draw(st.integers(1, 2))) if self.draw(st.booleans()) else inside.value()

    def step(self, depth: int) -> Any:
        kinds = ["call", "call", "split", "optional", "nested"]
        kinds += ["each", "when", "fallback"] if depth else []
        made: Any = None
        match self.draw(st.sampled_from(kinds)):
            case "call":
                after = [self.known(self.steps_made)] if self.steps_made and self.draw(st.booleans()) else []
                made = step.options(retries=self.draw(st.none() | st.integers(1, 2)), after=after)(
                    measure, self.value(), other=self.value()
                )
            case "split":
                made = step(split, self.value())
            case "optional":
                made = step.options(optional=True, timeout=self.draw(st.none() | st.just(5.5)))(refuse, self.value())
            case "nested":
                made = step(inner, self.draw(texts))
            case "fallback":
                made = step.options(fallback=lambda: self.body(depth))(refuse, self.value())
            case "when":
                has_otherwise = self.draw(st.booleans())
                made = when(
                    self.condition(), lambda: self.body(depth), (lambda: self.body(depth)) if has_otherwise else None
                )
            case _:
                made = each(
                    step(split, self.value()),
                    lambda item: self.body(depth, item),
                    at_once=self.draw(st.none() | st.integers(1, 2)),
                    on_error=self.draw(st.sampled_from(["fail", "skip", "stop"])),
                )
        self.values = [*self.values, made]
        return made

    @property
    def steps_made(self) -> list[Any]:
        return [value for value in self.values if repr(value) not in ("<Ref text>", "<Ref names>", "<Ref item>")]


def grow(data: st.DataObject) -> Recipe[..., Any]:
    def random_recipe(text: str, names: list[str] = []) -> Any:  # noqa: B006  # never changed
        """Any recipe."""
        grower = Grower(cast(Draw, data.draw), [text, names])
        result = grower.steps(2, data.draw(st.integers(1, 3)))
        if data.draw(st.booleans()):
            finally_(lambda: grower.step(0))
        return result

    return recipe(random_recipe)


def run(made: Recipe[..., Any]) -> tuple[str, object, list[str]]:
    async def main() -> RecipeResult[Any]:
        return await made.start({"text": "abc", "names": ["x", "yz"]}).wait()

    result = run_virtual(main())
    return result.status, result.output, sorted(f"{call.call.id} {call.state}" for call in result.calls)


@settings(max_examples=examples(100), deadline=None, suppress_health_check=SLOW)
@given(st.data())
def test_file_gives_the_same_graph_and_result(data: st.DataObject) -> None:
    made = grow(data)
    text = made.to_yaml()
    again = read_recipe(text.encode(), "recipe.yaml", tools=TOOLS, recipes=[inner])
    assert again.plan.body == made.plan.body
    assert again.plan.final_ids == made.plan.final_ids
    assert again.to_yaml() == text
    assert again.graph().explain() == made.graph().explain()
    assert run(again) == run(made)


@settings(max_examples=examples(40), deadline=None, suppress_health_check=SLOW)
@given(st.data())
def test_file_keeps_to_the_format(data: st.DataObject) -> None:
    text = grow(data).to_yaml()
    problems = list(cast(Any, Draft202012Validator(read_format())).iter_errors(yaml.safe_load(text)))
    assert problems == []


@recipe
def sample(text: str, names: list[str] = []) -> Any:  # noqa: B006  # never changed
    """A file with one of everything."""
    found = step.options(retries=1, timeout=5)(measure, text)
    quote = step.options(fallback=lambda: step(split, found))(refuse, found)
    lines = each(names, lambda name: step(measure, name, found), at_once=2, key=lambda name: name, on_error="skip")
    choice = when(is_none(found) | (found == 3), lambda: step(inner, text), otherwise=lambda: {"size": 0})
    note = ask(MODEL, "Judge {found}.", output_type=int, found=found)
    finally_(lambda: step(refuse, found))
    return [quote, lines, choice, note]


SAMPLE = sample.to_yaml()
WORDS = [
    *sorted(set(SAMPLE.replace(":", " ").split())),
    "!!python/object/apply:os.system ['true']", "&a", "*a", "<<", "{", "[", "-", ":", "\t", "\x00", "é", "null", "$ref", "$id",
]  # fmt: skip


@st.composite
def edits(draw: st.DrawFn) -> str:
    """The sample after a few changes."""
    text = SAMPLE
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        match draw(st.integers(0, 4)):
            case 0:
                text = text[:start] + text[start + draw(st.integers(1, 30)) :]
            case 1:
                text = text[:start] + draw(st.sampled_from(WORDS) | st.text(max_size=3)) + text[start:]
            case 2:
                lines = text.splitlines(keepends=True)
                first, second = (draw(st.integers(0, len(lines) - 1)) for _ in range(2)) if lines else (0, 0)
                if lines:
                    lines[first], lines[second] = lines[second], lines[first]
                text = "".join(lines)
            case 3:
                old = draw(st.sampled_from(WORDS))
                text = text.replace(old, draw(st.sampled_from(WORDS)), 1)
            case _:
                lines = text.splitlines(keepends=True)
                number = draw(st.integers(0, len(lines)))
                shift = draw(st.sampled_from(["  ", " ", ""]))
                text = "".join(
                    lines[:number] + [shift + line for line in lines[number : number + 3]] + lines[number + 3 :]
                )
    return text


def read_any(data: bytes) -> Recipe[..., Any] | RecipeFileError:
    ran.clear()
    try:
        return read_recipe(data, "recipe.yaml", tools=TOOLS, recipes=[inner], models={"small": MODEL})
    except RecipeFileError as error:
        return error
    finally:
        assert ran == []


@settings(max_examples=examples(400), deadline=None, suppress_health_check=SLOW)
@given(edits())
def test_edited_file_gives_a_recipe_or_an_error_with_its_place(text: str) -> None:
    found = read_any(text.encode("utf-8", "surrogatepass"))
    if isinstance(found, RecipeFileError):
        assert found.line is not None
        assert str(found).startswith(f"recipe.yaml:{found.line}:{found.column}: ")
    else:
        assert read_any(found.to_yaml().encode()) is not None


@settings(max_examples=examples(150), deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_give_an_error(data: bytes) -> None:
    assert isinstance(read_any(data), RecipeFileError)
