"""Model servers that already run on this machine, and could answer instead of the embedded model."""

from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import cast

from flowkit.codec import JSON, loads

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
    """Find the servers among `known` (name, host, port) that answer and have a model."""
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
