"""Define a route: its method and path, the type of its body, and its handler."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from starlette.datastructures import Headers, QueryParams
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from flowkit.codec import JSON


class RequestRefused(Exception):
    """A refused request. The response holds `error` and the fields of `details`."""

    def __init__(
        self,
        status: int,
        error: str,
        *,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, JSON] | None = None,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.headers = headers
        self.details = details

    def answer(self) -> Response:
        """Create the response."""
        return JSONResponse({"error": str(self), **(self.details or {})}, self.status, self.headers)


class RequestBody(BaseModel):
    """The JSON object of a POST; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Loose(BaseModel):
    """The JSON object of another protocol's POST; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore")


class Nothing(RequestBody):
    """An empty body, `{}`, for a POST that needs only its path."""


Answer = Response | Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that has passed the guard."""

    user: str | None
    path: Mapping[str, str]
    query: QueryParams
    headers: Headers
    body: Any = None

    @property
    def run(self) -> str:
        """The run's id in the path."""
        return self.path["run"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route. `is_page` marks files without secrets, which a browser loads before it has a token."""

    method: Literal["GET", "POST"]
    path: str
    answer: Callable[[Asked], Awaitable[Answer]]
    body: type[BaseModel] | None = None
    is_page: bool = False
    example: Mapping[str, JSON] = field(default_factory=dict[str, JSON])
    """A body that passes, for tests that walk all routes."""
