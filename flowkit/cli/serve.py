"""`flowkit serve`: serve an app's agents and recipes to browsers and to programs."""

import asyncio
import secrets
import signal
from collections.abc import Collection, Iterable
from contextlib import AsyncExitStack
from dataclasses import replace
from importlib.util import find_spec
from types import FrameType
from typing import Annotated

import typer

from flowkit.apps import load_app
from flowkit.cache import open_default_cache
from flowkit.cli.ending import end_at_sigterm, leave
from flowkit.cli.journals import open_journal
from flowkit.cli.model_choice import choose_model, close_models
from flowkit.cli.options import (
    WAIT_S,
    AppTarget,
    BaseUrl,
    CacheAddress,
    Data,
    JournalAddress,
    Model,
    ToolsFile,
    User,
    Wait,
    read_pairs,
)
from flowkit.cli.output import note
from flowkit.cli.worker import await_queue, open_queue
from flowkit.errors import ConfigurationError

LOOPBACK = ("localhost", "localhost.", "127.0.0.1", "[::1]")
PORT = 8000


def serve(
    app: AppTarget,
    host: Annotated[
        str, typer.Option(help="The address to listen on; other machines are served only with a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 picks a free one.")] = PORT,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="FLOWKIT_TOKEN", help="The secret that clients must send; by default each start makes a new one."
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST", help="A host name under which clients reach the server, such as shop.example; repeatable."
        ),
    ] = None,
    behind_proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="The address of a proxy whose X-Forwarded-For and X-Forwarded-Proto are trusted; repeatable.",
        ),
    ] = None,
    queue: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Leave runs to workers: postgresql://…, the queue that notifies them, or 'journal', which they poll.",
        ),
    ] = None,
    wait: Wait = WAIT_S,
    user: User = None,
    tools: ToolsFile = None,
    model: Model = None,
    base_url: BaseUrl = None,
    data: Data = None,
    journal: JournalAddress = None,
    cache: CacheAddress = None,
) -> None:
    """Serve an app over HTTP: a page to chat and watch runs, an API."""
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise ConfigurationError("serve needs two more packages: pip install 'flowkit-agents[serve]'")
    if not _is_loopback(host) and token is None:
        raise ConfigurationError(f"--host {host} can be reached from other machines: give --token or set FLOWKIT_TOKEN")
    if token is not None and len(token) < 16:
        raise ConfigurationError("--token is too short to be a secret: use at least 16 characters")
    from flowkit.web.served import make_served
    from flowkit.web.server import bind, make_server
    from flowkit.web.serving import Token, WebApp

    end_at_sigterm()
    served = make_served(load_app(app, tools=tools), read_pairs(data, "--data"))
    chosen_token = token or secrets.token_urlsafe(24)
    is_named = model is not None or base_url is not None
    await_queue(queue, wait)
    with open_journal(journal, wait_s=wait) as opened, choose_model(served.models, model, base_url) as chosen:
        served = replace(served, model=chosen, replaces_all=is_named)
        try:
            listening = bind(host, port)
        except OSError as error:
            raise ConfigurationError(f"can't listen on {host}:{port}: {error.strerror or error}") from error
        port = listening.getsockname()[1]
        access = Token(chosen_token, served.find_user(user))
        hosts = list_hosts(host, port, name or ())
        origins = [f"https://{one}" for one in name or () if behind_proxy]
        shown = f"[{host}]" if ":" in host else host
        runner = asyncio.Runner()
        for number in (signal.SIGINT, signal.SIGTERM):
            # uvicorn raises again what ended it, once it has ended; the journal is still to be closed then.
            signal.signal(number, _pass_over)

        async def run() -> None:
            async with AsyncExitStack() as stack:
                queued = None if queue is None else await stack.enter_async_context(open_queue(queue))
                web = WebApp(served, opened, access, hosts=hosts, origins=origins, queue=queued)
                note(f"serving {', '.join(served.targets)}; press Ctrl-C to stop")
                print(f"http://{shown}:{port}/#token={chosen_token}", flush=True)
                await make_server(web, web.aclose, forwarded=behind_proxy or ()).serve([listening])
            await close_models(*served.models, *([] if chosen is None else [chosen]))
            await open_default_cache().close()

        runner.run(run())
        opened.close()
        leave(runner)


def list_hosts(host: str, port: int, names: Iterable[str]) -> Collection[str]:
    """List the `Host` values to accept: this machine's names, the address it listens on, and the given names."""
    own = [f"[{host}]" if ":" in host else host] if host not in ("0.0.0.0", "::") else []
    known = {f"{name}:{port}" for name in (*LOOPBACK, *own)}
    if port == 80:
        known |= {*LOOPBACK, *own}
    return known | {name.lower() for name in names}


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "127.0.0.1", "::1")


def _pass_over(number: int, frame: FrameType | None) -> None:
    """Do nothing: the server has already handled this signal."""
