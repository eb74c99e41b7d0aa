"""Names as models spell them."""

import pytest

from flowkit.assemble.sealing import clean_name, is_wrapper, unwrap

KNOWN = {"get_weather", "functions.own", "Search", "search_all", "calendar_read"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("get_weather", "get_weather"),
        ("functions.get_weather", "get_weather"),
        ("functions.get_weather:0", "get_weather"),
        ("tools.get_weather", "get_weather"),
        ("get_weather<|channel|>commentary", "get_weather"),
        ("get_weather ", "get_weather"),
        ("GET_WEATHER", "get_weather"),
        ("get-weather", "get_weather"),
        ("calendar.read", "calendar_read"),
        ("functions.own", "functions.own"),
        ("search", "Search"),
    ],
)
def test_a_name_is_what_was_meant_case_t16(name: str, meant: str) -> None:
    assert clean_name(name, KNOWN) == meant


@pytest.mark.parametrize("name", ["fly", "functions.fly", "", "functions.", "get_weather_now"])
def test_unknown_names_stay_as_they_are(name: str) -> None:
    assert clean_name(name, KNOWN) == name


def test_name_that_could_be_two_stays_as_it_is() -> None:
    assert clean_name("GetIt", {"getit", "GETIT"}) == "GetIt"


def test_without_known_names_nothing_is_cleaned() -> None:
    assert clean_name("functions.get_weather", ()) == "functions.get_weather"
    assert not is_wrapper("multi_tool_use.parallel", ())


def test_a_wrapper_is_known_unless_a_tool_bears_its_name_case_t16() -> None:
    assert is_wrapper("multi_tool_use.parallel", KNOWN)
    assert is_wrapper("functions.parallel", KNOWN)
    assert not is_wrapper("parallel", {"parallel"})
    assert not is_wrapper("search", KNOWN)


def test_wrapper_holds_calls_with_objects_or_text() -> None:
    found = unwrap(
        {
            "tool_uses": [
                {"recipient_name": "functions.get_weather", "parameters": {"city": "Rome"}},
                {"recipient_name": "Search", "parameters": '{"q": "x"}'},
                {"recipient_name": "search_all"},
            ]
        },
        KNOWN,
    )
    assert [(call.name, call.arguments) for call in found] == [
        ("get_weather", {"city": "Rome"}),
        ("Search", {"q": "x"}),
        ("search_all", {}),
    ]


@pytest.mark.parametrize(
    "uses",
    [
        None,
        "x",
        [1],
        [{"parameters": {}}],
        [{"recipient_name": "Search", "parameters": "{"}],
        [{"name": "Search"}] * 33,
    ],
)
def test_wrapper_that_is_broken_holds_nothing(uses: list[dict[str, str]] | None) -> None:
    assert unwrap({"tool_uses": uses}, KNOWN) == ()  # pyright: ignore[reportArgumentType]  # broken on purpose
