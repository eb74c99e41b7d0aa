"""An index over a folder of documents, in one SQLite file: by meaning and by words.

Each passage has an embedding of the whole and one of each of its sentences, and its words stand in a full-text table:
Korean ones as pairs of syllables, since particles are joined to them ("연차는" holds "연차"). An update reads only files whose time
or size changed, and embeds only those whose content did; a file that is gone goes from the index too. The vectors are
read into memory once: a search by meaning is one product of a matrix with a vector. A second encoder, where there is
one, has a vector of each whole passage beside them.
"""

import hashlib
import math
import re
import sqlite3
import unicodedata
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from flowkit.models.offline.korean import find_nouns, is_korean
from knowledge_passages import Section, Unreadable, is_document, read_sections
from knowledge_synonyms import find_synonyms

VERSION = 5
"""Of the tables, and of how documents are cut; an index of another version is made anew."""
DIMENSIONS = 512
ANSWER_DIMENSIONS = 384
ANSWER_WEIGHT = 4.0
"""The cosines of the second encoder differ by a quarter as much as those of the first."""
SYNONYMS_AT_MOST = 4
ANSWER_MIDDLE = 0.8
"""About the cosine of the second encoder for a question and a passage that have nothing to do with each other."""

_TABLES = """
CREATE TABLE files (path TEXT PRIMARY KEY, modified_ns INTEGER, size INTEGER, digest TEXT);
CREATE TABLE passages (id INTEGER PRIMARY KEY, path TEXT, heading TEXT, text TEXT, vector BLOB, answer BLOB);
CREATE INDEX passages_by_path ON passages (path);
CREATE TABLE sentences (passage INTEGER, vector BLOB);
CREATE INDEX sentences_by_passage ON sentences (passage);
CREATE VIRTUAL TABLE words USING fts5 (terms, tokenize = 'porter unicode61');
"""


class Embedder(Protocol):
    """Turns texts into unit vectors."""

    def embed(self, texts: Sequence[str], /) -> Any:
        """Return a float32 array with a row for each text."""
        ...


class AnswerEmbedder(Protocol):
    """Turns questions, and passages that may answer them, into unit vectors."""

    def embed_questions(self, questions: Sequence[str], /) -> Any: ...
    def embed_passages(self, passages: Sequence[str], /) -> Any: ...


@dataclass(frozen=True)
class Passage:
    """A piece of a document; `score` orders the results of one search, and means nothing beside another's."""

    id: int
    file: str
    heading: str
    text: str
    score: float


@dataclass
class Update:
    """What an update did to each file; `unreadable` says why."""

    added: list[str] = field(default_factory=list[str])
    changed: list[str] = field(default_factory=list[str])
    removed: list[str] = field(default_factory=list[str])
    unchanged: int = 0
    unreadable: dict[str, str] = field(default_factory=dict[str, str])


class Index:
    """The passages of a folder; searches may run in several threads at once."""

    def __init__(self, database: Path, embedder: Embedder, answers: AnswerEmbedder | None = None) -> None:
        self._database = database
        self._embedder = embedder
        self._answers = answers
        # An index without the second encoder's vectors can't be compared by them.
        version = VERSION * 2 + (answers is not None)
        with self._open() as db:
            if db.execute("PRAGMA user_version").fetchone()[0] != version:
                for table in ("files", "passages", "sentences", "words"):
                    db.execute(f"DROP TABLE IF EXISTS {table}")
                db.executescript(_TABLES)
                db.execute(f"PRAGMA user_version = {version}")
        self._load_vectors()

    def __len__(self) -> int:
        return len(self._ids)

    def update(self, folder: Path) -> Update:
        """Bring the index to what the folder holds now."""
        update = Update()
        with self._open() as db:
            known = {row["path"]: row for row in db.execute("SELECT * FROM files")}
            # By composed names (NFC), as people type them; a Mac's folders hold decomposed ones.
            found = {
                unicodedata.normalize("NFC", path.relative_to(folder).as_posix()): path
                for path in sorted(folder.rglob("*"))
                if is_document(path)
            }
            for name in known.keys() - found.keys():
                _remove(db, name)
                update.removed.append(name)
            for name, path in found.items():
                with db:  # a file is in the index whole or not at all, whenever this is stopped
                    self._update_file(db, name, path, known.get(name), update)
        self._load_vectors()
        return update

    def list_files(self) -> dict[str, int]:
        """List each file and the number of its passages."""
        with self._open() as db:
            rows = db.execute("SELECT path, count(*) FROM passages GROUP BY path ORDER BY path").fetchall()
        return {row[0]: row[1] for row in rows}

    def read(self, file: str) -> list[Passage]:
        """Read the passages of one file, in order; empty when it isn't in the index.

        The end of its path suffices, from the beginning of a word, if only one file ends so.
        """
        wanted = unicodedata.normalize("NFC", file)
        names = self.list_files()
        ending = [name for name in names if name.endswith(wanted) and name[: -len(wanted)][-1:] in ("/", " ")]
        if wanted not in names and len(ending) == 1:
            (wanted,) = ending
        with self._open() as db:
            ids = db.execute("SELECT id FROM passages WHERE path = ? ORDER BY id", (wanted,)).fetchall()
            return _read_passages(db, {row["id"]: 0.0 for row in ids})

    def search_meaning(self, query: str, limit: int) -> list[Passage]:
        """Find the passages most like the query; the score is a mean of two cosines, from -1 to 1.

        A second encoder's opinion is added to it.
        """
        likeness = self._compare(query)
        best: list[int] = likeness.argsort()[::-1][:limit].tolist()
        with self._open() as db:
            return _read_passages(db, {self._ids[place]: float(likeness[place]) for place in best})

    def search_words(self, query: str, limit: int) -> list[Passage]:
        """Search the passages that hold words of the query; the score is BM25, higher for rarer words."""
        words = find_terms(query)
        if not words:
            return []
        # "call.sealed" is a phrase of two words.
        expression = " OR ".join(f'"{word}"' for word in words)
        with self._open() as db:
            rows = db.execute(
                "SELECT rowid, bm25(words) AS badness FROM words WHERE words MATCH ? ORDER BY badness LIMIT ?",
                (expression, limit),
            ).fetchall()
            return _read_passages(db, {row["rowid"]: -row["badness"] for row in rows})

    def compare(self, query: str, ids: Sequence[int]) -> dict[int, float]:
        """Compare each of these passages with the query, as `search_meaning` does."""
        likeness = self._compare(query)
        return {
            identifier: float(likeness[place])
            for identifier in ids
            if (place := self._places.get(identifier)) is not None
        }

    def cover(self, query: str, ids: Sequence[int]) -> dict[int, float]:
        """Return how much of the query's words each of these passages holds, from 0 to 1; rare words weigh more."""
        covered = dict.fromkeys(ids, 0.0)
        total = 0.0
        with self._open() as db:
            for word in find_terms(query):
                found = {row[0] for row in db.execute("SELECT rowid FROM words WHERE words MATCH ?", (f'"{word}"',))}
                # The weight of a word in BM25 (Robertson and Spärck Jones)
                weight = math.log(1 + (len(self) - len(found) + 0.5) / (len(found) + 0.5))
                total += weight
                for identifier in covered.keys() & found:
                    covered[identifier] += weight
        return {identifier: weight / total if total else 0.0 for identifier, weight in covered.items()}

    def _compare(self, query: str) -> Any:
        """Return each passage's likeness: the mean of that as a whole and that of the likeliest sentence.

        That of the second encoder, if there is one, is added.
        """
        import numpy

        vector = self._embedder.embed(_vary(query)).mean(axis=0)
        best = numpy.full(len(self._ids), -1.0, dtype="float32")
        numpy.maximum.at(best, self._sentence_places, self._sentences @ vector)
        likeness = (self._vectors @ vector + best) / 2
        if self._answers is not None:
            (question,) = self._answers.embed_questions([query])
            likeness += ANSWER_WEIGHT * (self._answer_vectors @ question - ANSWER_MIDDLE)
        return likeness

    def _update_file(
        self, db: sqlite3.Connection, name: str, path: Path, known: sqlite3.Row | None, update: Update
    ) -> None:
        status = path.stat()
        if known is not None and (known["modified_ns"], known["size"]) == (status.st_mtime_ns, status.st_size):
            update.unchanged += 1
            return
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if known is not None and known["digest"] == digest:
            db.execute("UPDATE files SET modified_ns = ? WHERE path = ?", (status.st_mtime_ns, name))
            update.unchanged += 1
            return
        _remove(db, name)
        try:
            sections = read_sections(path)
        except Unreadable as error:
            update.unreadable[name] = str(error)
            return
        whole = [f"{section.heading}\n{section.text}" for section in sections]
        vectors = self._embedder.embed(whole)
        answers = [None] * len(whole) if self._answers is None else self._answers.embed_passages(whole)
        said = [
            [
                f"{section.heading.rpartition(' › ')[-1]}: {one}".removeprefix(": ")
                for one in split_sentences(section.text)
            ]
            for section in sections
        ]
        sentences = iter(self._embedder.embed([one for group in said for one in group]))
        for section, vector, answer, group in zip(sections, vectors, answers, said, strict=True):
            _add(db, name, section, (vector, answer), [next(sentences) for _ in group])
        db.execute("INSERT INTO files VALUES (?, ?, ?, ?)", (name, status.st_mtime_ns, status.st_size, digest))
        (update.added if known is None else update.changed).append(name)

    def _load_vectors(self) -> None:
        import numpy

        with self._open() as db:
            rows = db.execute("SELECT id, vector, answer FROM passages ORDER BY id").fetchall()
            parts = db.execute("SELECT passage, vector FROM sentences ORDER BY passage").fetchall()
        self._ids: list[int] = [row["id"] for row in rows]
        self._places = {identifier: place for place, identifier in enumerate(self._ids)}
        self._vectors: Any = _join_vectors(row["vector"] for row in rows).reshape(-1, DIMENSIONS)
        if self._answers is not None:
            self._answer_vectors: Any = _join_vectors(row["answer"] for row in rows).reshape(-1, ANSWER_DIMENSIONS)
        self._sentences: Any = _join_vectors(row["vector"] for row in parts).reshape(-1, DIMENSIONS)
        self._sentence_places: Any = numpy.array([self._places[row["passage"]] for row in parts], dtype="int64")

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        # A connection for each search: it belongs to one thread, and opening a file takes less than a millisecond.
        db = sqlite3.connect(self._database)
        db.row_factory = sqlite3.Row
        try:
            with db:
                yield db
        finally:
            db.close()


def find_terms(query: str) -> list[str]:
    """Find the words to look for, once each; of a Korean query without the words that ask.

    >>> find_terms("연차는 며칠인가요?"), find_terms("what is call.sealed?")
    (['연차'], ['what', 'is', 'call.sealed'])
    """
    query = unicodedata.normalize("NFC", query)
    asked = " ".join(find_nouns(query)) if is_korean(query) else query
    # Quoted, a word can't be read as the full-text language, which a NUL would end.
    words = re.findall(r"\w[^\s\0]*\w|\w", write_terms(asked or query))
    return list(dict.fromkeys(word.replace('"', "") for word in words))


def _vary(query: str) -> list[str]:
    """List what is compared with the passages: the query, and of a Korean one its nouns with words that mean the same."""
    if not is_korean(query):
        return [query]
    query = unicodedata.normalize("NFC", query)
    nouns = [*find_nouns(query), *find_synonyms(query)[:SYNONYMS_AT_MOST]]
    return [query, " ".join(nouns)] if nouns else [query]


def write_terms(text: str) -> str:
    """Write a text as the index holds it: composed (NFC), and each Hangul word as its pairs of syllables.

    >>> write_terms("연차는 15일")
    '연차 차는 15 일'
    """
    composed = unicodedata.normalize("NFC", text)
    return re.sub(r"[가-힣]+", lambda match: f" {_pair(match.group())} ", composed).replace("  ", " ").strip()


def _pair(word: str) -> str:
    return " ".join(word[place : place + 2] for place in range(max(1, len(word) - 1)))


def split_sentences(text: str) -> list[str]:
    """Split at the ends of sentences and lines; pieces of a few characters mean nothing alone.

    >>> split_sentences("One is here. Two is there.")
    ['One is here.', 'Two is there.']
    """
    return [one.strip() for one in re.split(r"(?<=[.?!。])\s+|\n+", text) if len(one.strip()) > 3]


def _join_vectors(vectors: Iterable[bytes]) -> Any:
    import numpy

    return numpy.frombuffer(b"".join(vectors), dtype="<f4")


def _write_vector(vector: Any) -> bytes | None:
    return None if vector is None else vector.astype("<f4").tobytes()


def _add(
    db: sqlite3.Connection, name: str, section: Section, vectors: tuple[Any, Any], sentences: Sequence[Any]
) -> None:
    identifier = db.execute(
        "INSERT INTO passages (path, heading, text, vector, answer) VALUES (?, ?, ?, ?, ?)",
        (name, section.heading, section.text, *map(_write_vector, vectors)),
    ).lastrowid
    db.executemany(
        "INSERT INTO sentences (passage, vector) VALUES (?, ?)",
        [(identifier, _write_vector(one)) for one in sentences],
    )
    terms = write_terms(f"{section.heading}\n{section.text}")
    db.execute("INSERT INTO words (rowid, terms) VALUES (?, ?)", (identifier, terms))


def _remove(db: sqlite3.Connection, name: str) -> None:
    db.execute("DELETE FROM words WHERE rowid IN (SELECT id FROM passages WHERE path = ?)", (name,))
    db.execute("DELETE FROM sentences WHERE passage IN (SELECT id FROM passages WHERE path = ?)", (name,))
    db.execute("DELETE FROM passages WHERE path = ?", (name,))
    db.execute("DELETE FROM files WHERE path = ?", (name,))


def _read_passages(db: sqlite3.Connection, scores: Mapping[int, float]) -> list[Passage]:
    """Read the passages with these scores, in the order given."""
    marks = ", ".join("?" * len(scores))
    rows = db.execute(f"SELECT id, path, heading, text FROM passages WHERE id IN ({marks})", list(scores)).fetchall()
    found = {row["id"]: row for row in rows}
    return [
        Passage(identifier, found[identifier]["path"], found[identifier]["heading"], found[identifier]["text"], score)
        for identifier, score in scores.items()
        if identifier in found
    ]
