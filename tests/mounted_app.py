"""The app of the browser tests inside another one, under a prefix: `python -m tests.mounted_app FOLDER`."""

import asyncio
import socket
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from flowkit import serve_app

HERE = Path(__file__).parent


def show_home(_: Request) -> PlainTextResponse:
    return PlainTextResponse("the shop's own page")


async def main(folder: Path) -> None:
    """Serve until the process is stopped; prints the address."""
    web = serve_app(
        str(HERE / "web_app.py"),
        get_user=lambda _: "c-1",
        journal=folder / "journal.sqlite3",
        data={"database": str(folder / "shop.sqlite3")},
    )
    app = Starlette(routes=[Route("/", show_home), Mount("/flow", web)])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3))
    listening = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listening.getsockname()[1]}/flow/", flush=True)
    await server.serve(sockets=[listening])
    await web.aclose()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
