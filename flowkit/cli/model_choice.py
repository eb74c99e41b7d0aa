"""Choose the model that a command calls: the named one, the app's own, or the offline demo model."""

import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Protocol, cast, runtime_checkable
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from flowkit.cli.output import note, say_bytes
from flowkit.cli.starting import show_start
from flowkit.codec import JSON, loads
from flowkit.models.base import Model
from flowkit.models.default import DefaultModel, has_server, make_model
from flowkit.models.pricing import Priced

LOCAL = "local"


@runtime_checkable
class Closable(Protocol):
    """A model that keeps connections."""

    async def aclose(self) -> None: ...


@contextmanager
def choose_model(own: Iterable[Model], name: str | None, base_url: str | None) -> Generator[Model | None]:
    """Open the model that replaces an app's `own` models; yields None if the app keeps its own.

    If no model is named, it replaces only `DefaultModel`s, which the environment should have configured.

    Raises `ConfigurationError` if the model isn't available.
    """
    if is_local(own, name, base_url):
        if name is None:
            note(
                "no key and no server are set (OPENAI_API_KEY, OPENAI_BASE_URL, ANTHROPIC_API_KEY): the offline demo model answers"
            )
            offer_local_servers()
        with _start_local() as model:
            yield model
    elif name is not None or base_url is not None:
        yield make_model(name or DefaultModel().name, base_url)
    else:
        yield None


def is_local(own: Iterable[Model], name: str | None, base_url: str | None) -> bool:
    """Return True if the offline demo model will answer: it is named, or no other model is configured."""
    if name is not None or base_url is not None:
        return name == LOCAL
    return not has_server() and any(isinstance(model, DefaultModel) for model in own)


async def close_models(*models: Model) -> None:
    """Close the connections of the models that keep connections open."""
    for model in models:
        if isinstance(model, Closable):
            await model.aclose()


def find_server(model: Model) -> str | None:
    """Return the host that a model is called at, for display."""
    address = model.base_url if isinstance(model, Priced) else None
    return None if address is None else urlsplit(address).netloc.rpartition("@")[2]


def offer_local_servers() -> None:
    """Suggest local model servers, which would answer better than the demo model."""

    for server in find_local_servers():
        note(
            f"{server.name} runs here and would answer better: --base-url {server.base_url} --model {server.models[0]}"
        )


@contextmanager
def _start_local() -> Generator[Model]:
    """Start the embedded model, and show its download with progress."""
    from flowkit.models.offline.local import describe_download, start_local_model

    download = describe_download()
    if download is not None:
        note(f"downloading once: {download}")
    with ExitStack() as stack:
        progress = stack.enter_context(_show_progress())
        # A bar has the line while something is downloaded.
        with show_start("loading the demo model") if download is None else nullcontext():
            model = stack.enter_context(start_local_model(progress.tell))
        progress.close()
        yield model


class _Bar:
    """The progress of a download: a bar on a terminal, a line for each quarter elsewhere."""

    def __init__(self, bar: Progress | None) -> None:
        self._bar = bar
        self._task = None
        self._total = 0
        self._quarters = 0

    def tell(self, done: int, total: int) -> None:
        """Show download progress in bytes."""
        if self._bar is None:
            if total != self._total:  # the next file
                self._total, self._quarters = total, 0
            quarters = 4 * done // max(total, 1)
            if quarters > self._quarters:
                self._quarters = quarters
                note(f"  {say_bytes(done)} of {say_bytes(total)}")
            return
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task("", total=total)
        self._bar.update(self._task, completed=done, total=total)

    def close(self) -> None:
        """Remove the bar: the download is complete."""
        if self._bar is not None and self._task is not None:
            self._bar.stop()
            self._task = None


@contextmanager
def _show_progress() -> Generator[_Bar]:
    bar = None
    if sys.stderr.isatty():
        columns = (TextColumn("  "), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        bar = Progress(*columns, console=Console(stderr=True), transient=True)
    shown = _Bar(bar)
    try:
        yield shown
    finally:
        shown.close()


TIMEOUT_S = 0.2
"""A server on loopback answers at once, or there is none."""


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A server and the models that it has."""

    name: str
    base_url: str
    models: tuple[str, ...]


KNOWN = (("Ollama", "127.0.0.1", 11434), ("LM Studio", "127.0.0.1", 1234))


def find_local_servers(known: Sequence[tuple[str, str, int]] = KNOWN) -> list[LocalServer]:
    """Return the servers among `known` (name, host, port) that respond and have a model."""
    found = (_ask(name, host, port) for name, host, port in known)
    return [server for server in found if server is not None]


def _ask(name: str, host: str, port: int) -> LocalServer | None:
    connection = HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/v1/models")
        answer = connection.getresponse()
        data = loads(answer.read()) if answer.status == 200 else None
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()
    models = _read_models(data)
    return LocalServer(name, f"http://{host}:{port}/v1", models) if models else None


def _read_models(data: JSON) -> tuple[str, ...]:
    entries = data.get("data") if isinstance(data, dict) else None
    items = cast(list[JSON], entries) if isinstance(entries, list) else []
    return tuple(str(item["id"]) for item in items if isinstance(item, dict) and "id" in item)
