"""Routes for the page's files, and for the list of agents and recipes."""

import asyncio
import mimetypes
from pathlib import Path

from starlette.responses import JSONResponse, Response

from flowkit.codec import JSON
from flowkit.recipes import Recipe
from flowkit.tools import Tool
from flowkit.web.endpoints import Answer, Asked, Endpoint, RequestRefused
from flowkit.web.served import Served

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
