"""An index over a folder of documents, in one SQLite file: by meaning and by words.

Each passage has a sentence embedding, and its words stand in a full-text table. An update reads only files whose time
or size changed, and embeds only those whose content did; a file that is gone goes from the index too. The vectors are
read into memory once: a search by meaning is one product of a matrix with a vector.
"""

import hashlib
import re
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from knowledge_passages import SUFFIXES, Section, Unreadable, read_sections

VERSION = 1
"""Of the tables, and of how documents are cut; an index of another version is made anew."""
DIMENSIONS = 384

_TABLES = """
CREATE TABLE files (path TEXT PRIMARY KEY, modified_ns INTEGER, size INTEGER, digest TEXT);
CREATE TABLE passages (id INTEGER PRIMARY KEY, path TEXT, vector BLOB);
CREATE INDEX passages_by_path ON passages (path);
CREATE VIRTUAL TABLE words USING fts5 (path UNINDEXED, heading, text, tokenize = 'porter unicode61');
"""


class Embedder(Protocol):
    """Turns texts into unit vectors."""

    def embed(self, texts: Sequence[str], /) -> Any:
        """A float32 array with a row for each text."""
        ...


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

    def __init__(self, database: Path, embedder: Embedder) -> None:
        self._database = database
        self._embedder = embedder
        with self._open() as db:
            if db.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                for table in ("files", "passages", "words"):
                    db.execute(f"DROP TABLE IF EXISTS {table}")
                db.executescript(_TABLES)
                db.execute(f"PRAGMA user_version = {VERSION}")
        self._load_vectors()

    def __len__(self) -> int:
        return len(self._ids)

    def update(self, folder: Path) -> Update:
        """Bring the index to what the folder holds now."""
        update = Update()
        with self._open() as db:
            known = {row["path"]: row for row in db.execute("SELECT * FROM files")}
            found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if _is_ours(path)}
            for name in known.keys() - found.keys():
                _remove(db, name)
                update.removed.append(name)
            for name, path in found.items():
                with db:  # a file is in the index whole or not at all, whenever this is stopped
                    self._update_file(db, name, path, known.get(name), update)
        self._load_vectors()
        return update

    def list_files(self) -> dict[str, int]:
        """Each file and the number of its passages."""
        with self._open() as db:
            rows = db.execute("SELECT path, count(*) FROM passages GROUP BY path ORDER BY path").fetchall()
        return {row[0]: row[1] for row in rows}

    def read(self, file: str) -> list[Passage]:
        """The passages of one file, in order; empty when it isn't in the index."""
        with self._open() as db:
            ids = db.execute("SELECT id FROM passages WHERE path = ? ORDER BY id", (file,)).fetchall()
            return _read_passages(db, {row["id"]: 0.0 for row in ids})

    def search_meaning(self, query: str, limit: int) -> list[Passage]:
        """The passages most like the query; the score is the cosine of the angle, from -1 to 1."""
        likeness = self._vectors @ self._embedder.embed([query])[0]
        best: list[int] = likeness.argsort()[::-1][:limit].tolist()
        with self._open() as db:
            return _read_passages(db, {self._ids[place]: float(likeness[place]) for place in best})

    def search_words(self, query: str, limit: int) -> list[Passage]:
        """The passages that hold words of the query; the score is BM25, higher for rarer words."""
        words = [word.replace('"', "") for word in re.findall(r"\w[^\s\0]*\w|\w", query)]
        if not words:
            return []
        # Quoted, a word can't be read as the full-text language, which a NUL would end; "call.sealed" is then a phrase
        # of two words.
        expression = " OR ".join(f'"{word}"' for word in words)
        with self._open() as db:
            rows = db.execute(
                "SELECT rowid, bm25(words) AS badness FROM words WHERE words MATCH ? ORDER BY badness LIMIT ?",
                (expression, limit),
            ).fetchall()
            return _read_passages(db, {row["rowid"]: -row["badness"] for row in rows})

    def compare(self, query: str, ids: Sequence[int]) -> dict[int, float]:
        """How much each of these passages is like the query."""
        places = [place for place in map(self._places.get, ids) if place is not None]
        likeness: list[float] = (self._vectors[places] @ self._embedder.embed([query])[0]).tolist()
        return {self._ids[place]: value for place, value in zip(places, likeness, strict=True)}

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
        vectors = self._embedder.embed([f"{section.heading}\n{section.text}" for section in sections])
        for section, vector in zip(sections, vectors, strict=True):
            _add(db, name, section, vector)
        db.execute("INSERT INTO files VALUES (?, ?, ?, ?)", (name, status.st_mtime_ns, status.st_size, digest))
        (update.added if known is None else update.changed).append(name)

    def _load_vectors(self) -> None:
        import numpy

        with self._open() as db:
            rows = db.execute("SELECT id, vector FROM passages ORDER BY id").fetchall()
        self._ids: list[int] = [row["id"] for row in rows]
        self._places = {identifier: place for place, identifier in enumerate(self._ids)}
        joined = b"".join(row["vector"] for row in rows)
        self._vectors: Any = numpy.frombuffer(joined, dtype="<f4").reshape(-1, DIMENSIONS)

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


def _is_ours(path: Path) -> bool:
    return path.suffix in SUFFIXES and path.is_file()


def _add(db: sqlite3.Connection, name: str, section: Section, vector: Any) -> None:
    identifier = db.execute(
        "INSERT INTO passages (path, vector) VALUES (?, ?)", (name, vector.astype("<f4").tobytes())
    ).lastrowid
    db.execute(
        "INSERT INTO words (rowid, path, heading, text) VALUES (?, ?, ?, ?)",
        (identifier, name, section.heading, section.text),
    )


def _remove(db: sqlite3.Connection, name: str) -> None:
    db.execute("DELETE FROM words WHERE rowid IN (SELECT id FROM passages WHERE path = ?)", (name,))
    db.execute("DELETE FROM passages WHERE path = ?", (name,))
    db.execute("DELETE FROM files WHERE path = ?", (name,))


def _read_passages(db: sqlite3.Connection, scores: Mapping[int, float]) -> list[Passage]:
    """The passages with these scores, in the order given."""
    marks = ", ".join("?" * len(scores))
    rows = db.execute(f"SELECT rowid, path, heading, text FROM words WHERE rowid IN ({marks})", list(scores)).fetchall()
    found = {row["rowid"]: row for row in rows}
    return [
        Passage(identifier, found[identifier]["path"], found[identifier]["heading"], found[identifier]["text"], score)
        for identifier, score in scores.items()
        if identifier in found
    ]
