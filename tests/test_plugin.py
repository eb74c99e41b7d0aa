"""The pytest plugin, in test runs of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from flowkit.clock import ManualClock
from flowkit.errors import ConfigurationError
from flowkit.models.openai import OpenAIModel
from flowkit.models.wire.network_guard import check_server_allowed, is_local

pytest_plugins = ["pytester"]

REAL, LOCAL = "https://api.openai.com/v1", "http://localhost:8080/v1"


@pytest.mark.slow
def test_every_test_has_a_cache_folder_of_its_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os
        seen = []

        def test_first(flowkit_cache_dir):
            assert os.environ["FLOWKIT_CACHE_DIR"] == str(flowkit_cache_dir)
            flowkit_cache_dir.mkdir(parents=True)
            seen.append(flowkit_cache_dir)

        def test_second(flowkit_cache_dir):
            assert not flowkit_cache_dir.exists()
            assert flowkit_cache_dir not in seen

        def test_without_a_fixture():
            assert os.environ["FLOWKIT_CACHE_DIR"] not in map(str, seen)
        """
    )
    pytester.runpytest_subprocess("-q").assert_outcomes(passed=3)


def test_environment_is_put_back_and_the_folders_removed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWKIT_CACHE_DIR", "mine")
    pytester.makeconftest(
        """
        import os, pathlib

        def pytest_sessionfinish():
            pathlib.Path("after.txt").write_text(os.environ["FLOWKIT_CACHE_DIR"])
        """
    )
    pytester.makepyfile(
        """
        import pathlib

        def test_it(flowkit_cache_dir):
            flowkit_cache_dir.mkdir(parents=True)
            pathlib.Path("folder.txt").write_text(str(flowkit_cache_dir))
        """
    )
    pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider").assert_outcomes(passed=1)
    assert (pytester.path / "after.txt").read_text() == "mine"
    assert not Path((pytester.path / "folder.txt").read_text()).parent.exists()


def test_clock_stands_until_it_is_moved(flowkit_clock: ManualClock) -> None:
    began = flowkit_clock.wall()
    flowkit_clock.advance(60)
    assert flowkit_clock.wall() == began + 60


def test_real_model_is_refused_in_a_test() -> None:
    with pytest.raises(ConfigurationError, match=r"use flowkit\.testing\.ScriptedModel"):
        check_server_allowed(REAL, "gpt-4.1")


def test_model_on_this_machine_is_allowed_in_a_test() -> None:
    check_server_allowed(LOCAL, "qwen3")


@pytest.mark.real_model
def test_marked_test_may_ask_a_real_model() -> None:
    check_server_allowed(REAL, "gpt-4.1")


@pytest.mark.slow
def test_option_lets_every_test_ask_real_models(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        f"""
        from flowkit.models.wire.network_guard import check_server_allowed

        def test_it():
            check_server_allowed({REAL!r}, "gpt-4.1")
        """
    )
    pytester.runpytest_subprocess("-q").assert_outcomes(failed=1)
    pytester.runpytest_subprocess("-q", "--flowkit-real-models").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:1/v1", True),
        ("http://127.8.8.8/v1", True),
        ("http://[::1]:8080/v1", True),
        ("http://box.localhost/v1", True),
        ("http://192.168.1.5/v1", False),
        ("https://localhost.example.com/v1", False),
        ("", False),
    ],
)
def test_local_is_this_machine_only(url: str, expected: bool) -> None:
    assert is_local(url) is expected


def test_plugin_imports_nothing_heavy() -> None:
    code = "import sys, flowkit.testing.plugin; print(*sorted(name for name in sys.modules if '.' not in name))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    heavy = {"asyncio", "diskcache", "hypothesis", "jsonschema", "networkx", "openai", "orjson", "pydantic", "typer"}
    assert not heavy.intersection(loaded)


def test_request_of_a_real_model_is_refused_before_it_leaves() -> None:
    with pytest.raises(ConfigurationError, match=r"a test asks the model 'gpt-4\.1'"):
        OpenAIModel("gpt-4.1", base_url=REAL, api_key="none").open({})


@pytest.mark.slow
def test_examples_of_the_testing_page_pass_as_tests(pytester: pytest.Pytester) -> None:
    page = Path(__file__).parent.parent / "docs" / "how-to" / "testing.md"
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    tested = {f"test_block_{index}": block for index, block in enumerate(blocks) if "\ndef test_" in block}
    pytester.makepyfile(**tested)
    result = pytester.runpytest_subprocess("-q", "-W", "error", "-p", "no:cacheprovider", "-m", "not real_model")
    result.assert_outcomes(passed=len(tested) - 1, deselected=1)
