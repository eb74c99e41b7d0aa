"""Company search: a folder of documents, searched by meaning and by words at once, answered with sources.

    flowkit run recipes/knowledge.py:search query="what happens after a crash"
    flowkit chat recipes/knowledge.py "How do I resume a run that was killed?"

What it shows: a recipe whose two searches run at once, the same recipe as a step of another, and a model's answer with
sources that come from the search and not from the model.

The two searches find different things. Meaning finds what says the same in other words; words find names and codes.
Their scores can't be added: the results stay apart, or a step of their own ranks them again.
"""

import logging
import re
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import Field

from flowkit import CONTEXT, Agent, ConfigurationError, Context, DefaultModel, ToolError, ask, build, recipe, step, tool
from knowledge_encoder import AnswerEncoder
from knowledge_index import Index, Passage, Update
from knowledge_passages import is_document
from knowledge_synonyms import find_synonyms

CANDIDATES = 10
"""Passages that each search gives to the ranking."""
SYNONYM_BONUS = 0.1
"""What a passage gains that says a word of the query by another that means the same."""
EXACT_WORD_BONUS = 0.5
"""What a passage gains that holds all names and codes of the query; likeness seldom differs by more."""
COVER_BONUS = 0.25
"""What a passage gains that holds all words of the query."""

THOROUGH_BYTES = 50_000
"""The largest folder that a second encoder reads unasked: it takes half a second for each kilobyte, once."""
NOTICED_BYTES = 10_000
"""From here on it takes so long that it's told."""

_QUOTED = r"[\"'`“]([^\"'`”]+)[\"'`”]"
_NAME = r"(\S*(?:[A-Za-z][._/:]+\w|\w[_(]|[a-z][A-Z]|[A-Za-z]-?\d|\d[A-Za-z]|--\w)\S*)"
_EXACT = re.compile(f"{_QUOTED}|{_NAME}")
_logger = logging.getLogger("flowkit.apps.knowledge")


class Searches(Protocol):
    """An index, in this process or another."""

    def search_meaning(self, query: str, limit: int) -> list[Passage]: ...
    def search_words(self, query: str, limit: int) -> list[Passage]: ...
    def compare(self, query: str, ids: Sequence[int]) -> dict[int, float]: ...
    def cover(self, query: str, ids: Sequence[int]) -> dict[int, float]: ...
    def list_files(self) -> dict[str, int]: ...
    def read(self, file: str) -> list[Passage]: ...


@dataclass(frozen=True)
class Library:
    """What the searches work on."""

    index: Searches


@dataclass(frozen=True)
class Document:
    file: str
    passages: int


@dataclass(frozen=True)
class Found:
    """The passages for a query, the best first."""

    query: str
    passages: list[Passage]


@dataclass(frozen=True)
class Answer:
    """What was said, and the passages that it was said from."""

    text: str
    sources: list[str]


@contextmanager
def open_data(
    documents: Path | None = None, index: Path | None = None, thorough: bool | None = None
) -> Generator[Library]:
    """Open the index of a folder, brought up to date; the project's own documentation unless another is named.

    `thorough` adds a second encoder, of the extra `search`: it finds more, and indexing takes longer. Unless it's
    given, that encoder is used where it's installed and the folder is small.
    """
    documents = documents or Path(__file__).parent.parent / "docs"
    if not documents.is_dir():
        raise ConfigurationError(f"there is no folder {str(documents)!r}; name one with --data documents=FOLDER")
    size_bytes = measure_bytes(documents)
    is_thorough = AnswerEncoder.is_installed() and size_bytes <= THOROUGH_BYTES if thorough is None else thorough
    database = index or Path(__file__).with_name("knowledge-thorough.sqlite3" if is_thorough else "knowledge.sqlite3")
    if thorough is None and is_thorough and size_bytes > NOTICED_BYTES and not database.exists():
        _logger.warning("indexing with the second encoder, once; --data thorough=false is faster and finds less")
    opened, update = update_index(documents, database, thorough=is_thorough)
    for name, reason in update.unreadable.items():
        _logger.warning("%s can't be read: %s", name, reason)
    yield Library(opened)


def measure_bytes(documents: Path) -> int:
    """Add up the sizes of the documents in a folder."""
    return sum(path.stat().st_size for path in documents.rglob("*") if is_document(path))


def update_index(documents: Path, database: Path, *, thorough: bool = False) -> tuple[Index, Update]:
    """Bring the index in this file up to date, making it if needed.

    Raises `ConfigurationError` where it can't be opened, or sentence embeddings aren't installed.
    """
    from flowkit.models.offline.embeddings import SentenceEmbedder

    try:
        index = Index(database, SentenceEmbedder(), AnswerEncoder() if thorough else None)
        return index, index.update(documents)
    except sqlite3.Error as error:
        raise ConfigurationError(f"the index {str(database)!r} can't be opened: {error}") from error


Limit = Annotated[int, Field(ge=1, le=20)]


@tool(effect="read")
def search_by_meaning(
    query: Annotated[str, Field(description="A question or a sentence.")],
    limit: Limit = 5,
    ctx: Context[Library] = CONTEXT,
) -> list[Passage]:
    """Answer a question: how, why, what happens; finds the passages about it, in whatever words they say it.

    As in "How do I resume a run?", "What does the handbook say about holidays?", "Why is this slow?", "Can I change
    it?", "What happens when something fails?", "Explain how this works" or "실행을 어떻게 재개하나요?".
    """
    return ctx.data.index.search_meaning(query, limit)


@tool(effect="read")
def search_by_words(
    query: Annotated[str, Field(description="Names, codes or exact words.")],
    limit: Limit = 5,
    ctx: Context[Library] = CONTEXT,
) -> list[Passage]:
    """Find passages that mention an exact word, phrase, name, code or error message.

    As in "Find the word journal", "Which pages mention call.sealed?", "Where does ToolError occur?" or
    "journal이라는 단어를 찾아 줘".
    """
    return ctx.data.index.search_words(query, limit)


@tool(effect="read")
def list_documents(ctx: Context[Library] = CONTEXT) -> list[Document]:
    """List all documents there are.

    As in "Which documents do you have?", "List all files" or "어떤 문서를 가지고 있나요?".
    """
    return [Document(file, passages) for file, passages in ctx.data.index.list_files().items()]


@tool(effect="read")
def read_document(
    file: Annotated[
        str, Field(pattern=r"[\w./()-]+\.(?:md|txt|pdf|MD|TXT|PDF)$", description="As in how-to/models.md.")
    ],
    ctx: Context[Library] = CONTEXT,
) -> list[Passage]:
    """Read one whole document by its file name.

    As in "Open the file index.md", "Read tutorial.md" or "index.md 파일을 열어 줘".
    """
    passages = ctx.data.index.read(file)
    if not passages:
        raise ToolError(f"there is no document {file!r}; list_documents tells which there are")
    return passages


@tool(effect="read")
def rank_passages(
    query: str,
    by_meaning: list[Passage],
    by_words: list[Passage],
    limit: Limit = 5,
    ctx: Context[Library] = CONTEXT,
) -> list[Passage]:
    """Merge the results of both searches: by likeness, with a bonus for the words, names and codes of the query."""
    candidates = {passage.id: passage for passage in (*by_meaning, *by_words)}
    likeness = ctx.data.index.compare(query, list(candidates))
    covered = ctx.data.index.cover(query, list(candidates))
    exact = find_exact_words(query)
    synonyms = find_synonyms(query)
    scored = [
        replace(
            passage,
            score=likeness.get(passage.id, 0.0)
            + COVER_BONUS * covered[passage.id]
            + EXACT_WORD_BONUS * _share_of(exact, passage)
            + SYNONYM_BONUS * any(word in f"{passage.heading} {passage.text}" for word in synonyms),
        )
        for passage in candidates.values()
    ]
    return sorted(scored, key=lambda passage: -passage.score)[:limit]


agent = Agent(
    DefaultModel(),
    name="knowledge",
    tools=[search_by_meaning, search_by_words, list_documents, read_document],
    instructions=(
        "You answer questions from a folder of documents. Search by meaning and by words in the same turn. "
        "Say only what the passages say, and name the file and heading of each that you used, as (file › heading). "
        "If they don't answer the question, say so."
    ),
)


@recipe
def search(query: str, limit: Limit = 5) -> Found:
    """Find the best passages for a query: by meaning and by words in parallel, then ranked together."""
    by_meaning = step(search_by_meaning, query, CANDIDATES)
    by_words = step(search_by_words, query, CANDIDATES)
    return build(Found, query=query, passages=step(rank_passages, query, by_meaning, by_words, limit))


@tool(effect="read")
def name_sources(passages: list[Passage]) -> list[str]:
    """Name the file and heading of each passage, once."""
    return list(dict.fromkeys(" › ".join(filter(None, (one.file, one.heading))) for one in passages))


@recipe
def answer(question: str) -> Answer:
    """Answer by a model from the best passages, with their sources, which no model can make up."""
    found = step(search, question, 4)
    said = ask(
        DefaultModel(),
        "Answer {question} from {passages} alone, in at most four sentences. If they don't tell, say so.",
        question=question,
        passages=found.passages,
    )
    return build(Answer, text=said, sources=step(name_sources, found.passages))


def find_exact_words(query: str) -> list[str]:
    """Find what a query names exactly: quoted words, and words that look like names in code or codes.

    >>> find_exact_words('What does run_id="x" do in call.sealed or "in doubt"?')
    ['run_id="x"', 'call.sealed', 'in doubt']
    """
    found = (quoted or code for quoted, code in _EXACT.findall(query))
    return [word.strip(".,;:?!").casefold() for word in found]


def _share_of(words: Sequence[str], passage: Passage) -> float:
    text = f"{passage.heading}\n{passage.text}".casefold()
    return sum(word in text for word in words) / len(words) if words else 0.0
