"""Every sentence of the pages on crashes, privacy and time has the tests that hold it; `tests/promises/` names them.

A file there has the name of its page. It repeats each sentence, or row of a table, and below it, indented, the tests
that hold it, or why there is nothing to hold. So whoever changes a sentence looks at its tests again, and whoever
removes a test finds the sentence that it held.
"""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROMISES = ROOT / "tests" / "promises"
PAGES = (
    "docs/explanation/crashes.md",
    "docs/explanation/faults.md",
    "docs/explanation/security.md",
    "docs/explanation/time.md",
    "docs/how-to/agents.md",
    "docs/how-to/approval.md",
    "docs/how-to/budgets.md",
    "docs/how-to/caching.md",
    "docs/how-to/conversations.md",
    "docs/how-to/cpu-bound-tools.md",
    "docs/how-to/deployment.md",
    "docs/how-to/from-a-streaming-class.md",
    "docs/how-to/guards.md",
    "docs/how-to/postgres-journal.md",
    "docs/how-to/redis-cache.md",
    "docs/how-to/resuming.md",
    "docs/how-to/several-machines.md",
    "docs/how-to/tools.md",
    "docs/how-to/web-client.md",
)
UNHELD = {
    "(advice)": "says what the reader should do",
    "(elsewhere)": "is about other software, or about the machine",
    "(leads on)": "leads to what follows, to an example or to another page",
    "(limit)": "says what isn't promised",
    "(words)": "explains a word or a reason",
}
"""Why a sentence has no test. Figures name the benchmark that measures them, as `tests/bench/NAME.py`."""

NOT_SENTENCES = re.compile(r"^ *```.*?^ *```$|<!--.*?-->|^#.*?$", re.MULTILINE | re.DOTALL)
RULE = re.compile(r"[|\-: ]+")
MARK = re.compile(r"^(?:- |\d+\. )")
FIGURE = re.compile(r"(?<=\|) [\d.,]+(?: s)?(?= \|)")
BETWEEN = re.compile(r"(?<=[.?!]) +(?=[A-Z`\[*])")

FUNCTION = re.compile(r"^ *(?:async )?def (\w+)\(", re.MULTILINE)
"""Reading a file so takes a hundredth of the time of parsing it."""


def split_page(text: str) -> list[str]:
    """The sentences of a page in their order, and the rows of its tables without heads and measured figures."""
    lines = [line.strip() for line in NOT_SENTENCES.sub("", text).splitlines()]
    sentences: list[str] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if not line.startswith("|"):
            sentences += filter(None, BETWEEN.split(MARK.sub("", line, count=1)))
        elif not RULE.fullmatch(line) and not RULE.fullmatch(following or "."):
            sentences.append(FIGURE.sub(" …", line))
    return sentences


def read_promises(page: str) -> dict[str, list[str]]:
    """The sentences of a page as its file repeats them, each with what is named below it."""
    promises: dict[str, list[str]] = {}
    named: list[str] = []
    for line in (PROMISES / f"{Path(page).stem}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("    "):
            named.append(line.strip())
        elif line and not line.startswith("# "):
            assert line not in promises, f"{line!r} stands twice"
            named = promises[line] = []
    return promises


@cache
def names_of(path: str) -> frozenset[str]:
    """The functions of a file of tests."""
    return frozenset(FUNCTION.findall((ROOT / path).read_text(encoding="utf-8")))


def is_there(name: str) -> bool:
    """Whether it is a reason, a benchmark or a test that there is."""
    path, _, function = name.partition("::")
    if name in UNHELD or not (ROOT / path).is_file():
        return name in UNHELD
    return function in names_of(path) if function else path.startswith("tests/bench/")


@pytest.mark.parametrize("page", PAGES)
def test_every_sentence_of_a_page_of_promises_has_its_row(page: str) -> None:
    sentences, promises = split_page((ROOT / page).read_text(encoding="utf-8")), read_promises(page)
    assert [sentence for sentence in sentences if sentence not in promises] == [], "sentences without a row"
    assert [sentence for sentence in promises if sentence not in sentences] == [], "rows without a sentence"


@pytest.mark.parametrize("page", PAGES)
def test_every_row_names_tests_that_are_there(page: str) -> None:
    promises = read_promises(page)
    assert {sentence: named for sentence, named in promises.items() if not named} == {}
    assert [name for named in promises.values() for name in named if not is_there(name)] == []
    assert all(len(named) == 1 for named in promises.values() if set(named) & set(UNHELD)), "a reason stands alone"


def test_a_page_is_split_into_its_sentences() -> None:
    page = "# Head\n\nOne `a.b` thing. Two things:\n\n- A third. `Four`?\n\n```text\nnone\n```\n| a | b |\n|---|---|\n| c | 1.3 s |\n"
    assert split_page(page) == ["One `a.b` thing.", "Two things:", "A third.", "`Four`?", "| c | … |"]


def test_what_is_not_there_is_found() -> None:
    here = "tests/test_promised_sentences.py"
    assert is_there(f"{here}::test_what_is_not_there_is_found")
    assert is_there("tests/bench/turn.py")
    missing = [f"{here}::test_gone", "tests/test_gone.py::test_gone", here, "(no reason)", "tests/bench/gone.py"]
    assert not any(map(is_there, missing))
