"""Two searches at once against one after the other: `python -m tests.bench.knowledge [--json]`.

At least 2,000 passages of documentation: the docstrings of the standard library and of an installed package. The same
questions are asked three ways: by two function calls one after the other, with nothing of flowkit in between; by the
app's recipe with one slot, so that its searches can't run at once; and by the recipe as it is. First on the index in
this process, then with each search on a server on loopback that answers as late as one elsewhere would; the ranking is
always done here. Wall time, since waiting is what running at once saves.
"""

import ast
import asyncio
import json
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from flowkit.context import Context
from tests.bench.report import Report, wants_json

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "recipes"))

from knowledge import CANDIDATES, Library, Searches, rank_passages, search, update_index
from knowledge_index import Index, Passage

PACKAGES = ("asyncio", "email", "http", "json", "logging", "sqlite3", "concurrent", "urllib", "unittest", "networkx")
SECTIONS = 2_000
"""Docstrings to take; each is one passage or more."""
LATENCY_S = 0.08
"""Of the remote index: what a search service in another region takes, besides the search."""
ROUNDS = 5
LIMIT = 5
QUESTIONS = (
    "how do I wait for several coroutines",
    "shortest path between two nodes of a graph",
    "send an e-mail with an attachment",
    "what does HTTPConnection do when the server closes",
    "format of log records",
    "run a function in a thread pool",
    "open a database file",
    "betweenness_centrality of large graphs",
    "percent-encode a URL",
    "check that a function raises",
)


@dataclass(frozen=True)
class RemoteIndex:
    """An index whose searches are elsewhere."""

    port: int
    here: Index

    def search_meaning(self, query: str, limit: int) -> list[Passage]:
        return self._ask("search_meaning", query, limit)

    def search_words(self, query: str, limit: int) -> list[Passage]:
        return self._ask("search_words", query, limit)

    def compare(self, query: str, ids: Sequence[int]) -> dict[int, float]:
        return self.here.compare(query, ids)

    def cover(self, query: str, ids: Sequence[int]) -> dict[int, float]:
        return self.here.cover(query, ids)

    def list_files(self) -> dict[str, int]:
        return self.here.list_files()

    def read(self, file: str) -> list[Passage]:
        return self.here.read(file)

    def _ask(self, name: str, query: str, limit: int) -> list[Passage]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", f"/{name}", json.dumps({"query": query, "limit": limit}))
            return [Passage(**found) for found in json.loads(connection.getresponse().read())]
        finally:
            connection.close()


class Server(ThreadingHTTPServer):
    """Answers searches of an index, late."""

    index: Index


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]  # the only server that has this handler

    def do_POST(self) -> None:
        time.sleep(LATENCY_S)
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        run = self.server.index.search_meaning if self.path == "/search_meaning" else self.server.index.search_words
        body = json.dumps([asdict(passage) for passage in run(asked["query"], asked["limit"])]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve(index: Index) -> Generator[RemoteIndex]:
    server = Server(("127.0.0.1", 0), Handler)
    server.index = index
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield RemoteIndex(server.server_port, index)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_documents(folder: Path) -> None:
    """The docstrings of each module as a Markdown file, with the names as headings, until there are enough."""
    written = 0
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        root = Path(spec.origin).parent
        for source in sorted(root.rglob("*.py")):
            if "tests" in source.parts:
                continue
            name = ".".join((package, *source.relative_to(root).with_suffix("").parts))
            sections = list(read_docstrings(ast.parse(source.read_text(encoding="utf-8")), name))
            if sections and written < SECTIONS:
                written += len(sections)
                (folder / f"{name}.md").write_text("\n\n".join(f"# {name}\n\n{text}" for name, text in sections))


def read_docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """The docstrings of a module, a class or a function and of what is in it, by their full names."""
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        text = ast.get_docstring(node)
        if text:
            yield name, text
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from read_docstrings(child, f"{name}.{child.name}")


@dataclass(frozen=True)
class Times:
    """Medians of one question, in seconds."""

    by_hand_s: float
    one_slot_s: float
    at_once_s: float


def measure(index: Searches) -> Times:
    """The three ways by turns, so that a busy machine is busy for each."""
    library = Library(index)
    context = Context(library)

    def search_by_hand(question: str) -> list[Passage]:
        by_meaning = index.search_meaning(question, CANDIDATES)
        by_words = index.search_words(question, CANDIDATES)
        return rank_passages(question, by_meaning, by_words, LIMIT, context)

    async def go() -> Times:
        by_hand: list[float] = []
        one_slot: list[float] = []
        at_once: list[float] = []
        for _ in range(ROUNDS):
            for question in QUESTIONS:
                began = time.perf_counter()
                expected = search_by_hand(question)
                by_hand.append(time.perf_counter() - began)
                for recipe, times in (
                    (search.options(data=library, slots=1), one_slot),
                    (search.options(data=library), at_once),
                ):
                    began = time.perf_counter()
                    result = await recipe.run(question, LIMIT)
                    times.append(time.perf_counter() - began)
                    assert result.output is not None
                    assert [one.id for one in result.output.passages] == [one.id for one in expected]
        return Times(median(by_hand), median(one_slot), median(at_once))

    return asyncio.run(go())


def main() -> None:
    """Print the times of both indexes, and what indexing took."""
    report = Report("knowledge", wants_json(sys.argv))
    with tempfile.TemporaryDirectory() as name:
        documents = Path(name) / "documents"
        documents.mkdir()
        write_documents(documents)
        began = time.perf_counter()
        index, _ = update_index(documents, Path(name) / "index.sqlite3")
        indexed_s = time.perf_counter() - began
        assert len(index) >= SECTIONS
        began = time.perf_counter()
        index.update(documents)
        again_s = time.perf_counter() - began
        report.row(
            "update of an unchanged folder / first index",
            again_s / indexed_s,
            0.05,
            passages=len(index),
            first=f"{indexed_s:.1f} s",
            again=f"{again_s * 1e3:.0f} ms",
        )
        with serve(index) as remote:
            for case, searches in (("as they are", index), (f"remote, {LATENCY_S * 1e3:.0f} ms", remote)):
                times = measure(searches)
                for way, seconds, goal in (
                    ("one slot", times.one_slot_s, None),
                    ("at once", times.at_once_s, 0.7 if searches is remote else None),
                ):
                    report.row(
                        f"{case}: {way} / one after the other by hand",
                        seconds / times.by_hand_s,
                        goal,
                        recipe=f"{seconds * 1e3:.1f} ms",
                        by_hand=f"{times.by_hand_s * 1e3:.1f} ms",
                    )
    report.print()


if __name__ == "__main__":
    main()
