"""What importing flowkit loads: nothing that only some programs use."""

import subprocess
import sys

import pytest

from tests.server import ScriptedServer, chat

HEAVY = (
    "openai",
    "networkx",
    "diskcache",
    "jsonschema",
    "griffe",
    "typer",
    "rich",
    "yaml",
    "httpx2",
    "sqlite3",
    "distributed",
    "dask",
    "concurrent.futures.process",
)


def modules_after(program: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after this program."""
    command = [sys.executable, "-c", f"{program}\nimport sys; print(*sys.modules)"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_import_loads_no_other_package() -> None:
    loaded = modules_after("import flowkit") - modules_after("pass")

    assert {name for name in loaded if "." not in name} & {"pydantic", *HEAVY} == set()


def test_making_a_tool_loads_only_pydantic() -> None:
    loaded = modules_after("from flowkit import tool\n@tool\ndef get(name: str) -> str:\n    return name")

    assert "pydantic" in loaded
    assert loaded & set(HEAVY) == set()


@pytest.mark.slow
def test_asking_a_server_on_this_machine_loads_what_speaks_to_it() -> None:
    with ScriptedServer([chat("Fine.")]) as server:
        model = f"OpenAIModel('any', base_url={server.base_url!r}, api_key='any')"
        loaded = modules_after(f"from flowkit import Agent, OpenAIModel\nAgent({model}, cache=False).run_sync('go')")

    assert "openai" in loaded
    assert loaded & {"genai_prices", "openai.resources", *HEAVY} == {"openai", "httpx2", "sqlite3"}


@pytest.mark.slow
def test_every_public_name_is_there() -> None:
    loaded = modules_after("import flowkit\nfor name in flowkit.__all__: getattr(flowkit, name)")

    assert "flowkit.agent" in loaded
