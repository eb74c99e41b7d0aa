"""`serve_app`: agents and recipes as an ASGI app, alone or mounted in another.

Routes for the page's files, and for the list of agents and recipes.
"""

import asyncio
import logging
import mimetypes
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Self, cast

from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from flowkit.codec import JSON
from flowkit.errors import ConfigurationError, RunError
from flowkit.journal import Journal, default_journal
from flowkit.recipes import Recipe
from flowkit.runs.queue import RunQueue
from flowkit.tools import Tool
from flowkit.web.endpoints import Answer, Asked, Endpoint, RequestRefused
from flowkit.web.live_runs import LiveRuns
from flowkit.web.request_guard import SECURITY_HEADERS, GetUser, Guard, Token
from flowkit.web.run_routes import RunRoutes
from flowkit.web.served import Bounds, Servable, Served, Target, make_served
from flowkit.web.wire_routes import WireRoutes

PAGE = Path(__file__).parent / "page"
LANGUAGES = ("ko", "en")


class AppRoutes:
    """`GET /api/app`, and the built page. The page's files are read once, when the server starts."""

    def __init__(self, served: Served, page: Path = PAGE) -> None:
        self._served = served
        self._files = {path.name: path for path in page.iterdir() if path.is_file()} if page.is_dir() else {}

    def list_endpoints(self) -> list[Endpoint]:
        """List the routes. The page's route is last, since its pattern matches any name."""
        return [
            Endpoint("GET", "/api/app", self.show),
            Endpoint("GET", "/", self.send_index, is_page=True),
            Endpoint("GET", "/{file}", self.send_file, is_page=True),
        ]

    async def show(self, asked: Asked) -> Answer:
        """Describe the agents and recipes with their tools and schemas, without file paths."""
        targets = self._served.targets.values()
        agents: list[JSON] = [
            {
                "name": target.name,
                "model": self._served.name_model(target),
                "tools": [_tool_to_json(tool) for tool in target.tools],
            }
            for target in targets
            if not isinstance(target, Recipe)
        ]
        recipes: list[JSON] = [
            {
                "name": target.name,
                "description": target.description,
                "parameters": dict(target.parameters),
                "effect": target.effect,
                "tools": [_tool_to_json(tool) for tool in target.plan.tools.values()],
            }
            for target in targets
            if isinstance(target, Recipe)
        ]
        language = choose_language(asked.headers.get("accept-language", ""))
        first = next(iter(self._served.targets))
        return JSONResponse(
            {"agents": agents, "recipes": recipes, "first": first, "user": asked.user, "language": language}
        )

    async def send_index(self, asked: Asked) -> Answer:
        """Send the page."""
        return await self._send("index.html")

    async def send_file(self, asked: Asked) -> Answer:
        """Send a file of the page."""
        return await self._send(asked.path["file"])

    async def _send(self, name: str) -> Answer:
        path = self._files.get(name)
        if path is None:
            raise RequestRefused(404, "there is nothing here")
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(
            await asyncio.to_thread(path.read_bytes), media_type=kind, headers={"cache-control": "no-cache"}
        )


def choose_language(accepted: str) -> str:
    """Choose the page's language by an `Accept-Language` header; English if the page has none of its languages.

    >>> choose_language("fr, ko-KR;q=0.9, en;q=0.8")
    'ko'
    """
    ranked: list[tuple[float, int, str]] = []
    for position, part in enumerate(accepted.split(",")[:20]):
        name, _, quality = part.strip().partition(";q=")
        try:
            ranked.append((-float(quality or 1), position, name.split("-")[0].lower()))
        except ValueError:
            continue
    return next((name for _, _, name in sorted(ranked) if name in LANGUAGES), "en")


def _tool_to_json(tool: Tool[..., object]) -> JSON:
    return {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
        "effect": tool.effect,
        "asks": bool(tool.approval),
        "secrets": list[JSON](sorted(tool.secrets)),
    }


logger = logging.getLogger("flowkit.web")


class WebApp:
    """The ASGI app. Its host calls `aclose` on shutdown, which releases the runs."""

    def __init__(
        self,
        served: Served,
        journal: Journal,
        access: Token | GetUser,
        *,
        hosts: Collection[str] | None = None,
        origins: Collection[str] = (),
        bounds: Bounds | None = None,
        owns_journal: bool = False,
        queue: RunQueue | None = None,
    ) -> None:
        self.bounds = bounds or Bounds()
        self.journal = journal
        self.runs = LiveRuns(served, journal, self.bounds.runs, queue)
        self._routes = RunRoutes(served, journal, self.runs, self.bounds)
        wires = WireRoutes(self._routes, self.runs, journal, self.bounds)
        self.endpoints: list[Endpoint] = [
            *self._routes.list_endpoints(),
            *wires.list_endpoints(),
            *AppRoutes(served).list_endpoints(),
        ]
        self._guard = Guard(self.endpoints, access, self.bounds, hosts=hosts, origins=origins)
        self._owns_journal = owns_journal
        self._is_closed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "lifespan":
                await self._live(receive, send)
            case "http":
                await self._answer(scope, receive, _add_headers(send))
            case _:
                await send({"type": "websocket.close", "code": 1008})

    @property
    def streams_open(self) -> int:
        """The number of streams being sent."""
        return self._routes.streams_open

    async def aclose(self) -> None:
        """Release the runs and end the streams; other processes can resume unfinished runs."""
        if self._is_closed:
            return
        self._is_closed = True
        await self.runs.leave(self.bounds.grace_s)
        await self._routes.close_streams()
        if self._owns_journal:
            self.journal.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._guard.admit(scope, receive, send)
        except RequestRefused as refused:
            answer = refused.answer()
        except RunError as error:
            answer = RequestRefused(409, str(error)).answer()
        except Exception:  # whatever it is, its text is for the log and not for the client
            logger.exception("%s %s failed", scope["method"], scope["path"])
            answer = JSONResponse({"error": "it failed; the server's log says why"}, 500)
        await answer(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Handle startup and shutdown if a server runs this app directly instead of mounting it."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return


def serve_app(
    app: Servable | Iterable[Target],
    *,
    get_user: GetUser,
    journal: Journal | str | Path | None = None,
    data: Mapping[str, str] | None = None,
    hosts: Collection[str] | None = None,
    origins: Collection[str] = (),
    bounds: Bounds | None = None,
    queue: RunQueue | None = None,
) -> WebApp:
    """Create an ASGI app that serves agents and recipes; mount it under any prefix of FastAPI or Starlette.

    `app` is an agent, a recipe, several of them, or a file with them, whose `open_data` takes the user and `data`.
    `get_user` returns the user of a Starlette `Request`, None without a login. Users see only their own runs.
    `journal` stores the runs, by default in the usual place. `hosts` are the accepted values of the `Host`
    header, by default any. `origins` are other sites that are allowed to send requests. With a `queue`, runs are
    recorded for workers and not driven here. Call `aclose` when your app
    shuts down; if this app isn't mounted, the server's lifespan calls it.

    Raises `ConfigurationError` if the app has no agent and no recipe.
    """
    if not callable(get_user):
        raise ConfigurationError("serve_app(…, get_user=…) takes a function that returns a request's user")
    served = make_served(app, data)
    owns = not isinstance(journal, Journal)
    opened = Journal(journal or default_journal()) if not isinstance(journal, Journal) else journal
    return WebApp(served, opened, get_user, hosts=hosts, origins=origins, bounds=bounds, owns_journal=owns, queue=queue)


def _add_headers(send: Send) -> Send:
    """Add security headers to each response."""
    added = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = cast("list[tuple[bytes, bytes]]", message.get("headers", []))
            message = {**message, "headers": [*headers, *added]}
        await send(message)

    return send_with_headers
