"""Find the keys that were sent with a request, to mask them where a server repeats them in its answer.

They come from the settings, the headers of a user's own HTTP client, its authentication, or the address.
"""

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from flowkit.errors import ModelError
from flowkit.masking import MASK
from flowkit.models.base import Delta, ErrorDelta
from flowkit.models.wire.settings import PLACEHOLDER_KEY, ModelServer

SHORTEST_KEY = 8
"""What is shorter is a word like `none`, which a server's sentence may hold for other reasons."""
_WORDS = ("auth", "key", "token", "secret", "cookie", "signature", "credential", "password")
"""What the name of a header or of a part of an address says of a secret."""


class _Url(Protocol):
    @property
    def params(self) -> Any: ...
    @property
    def password(self) -> str: ...


class SentRequest(Protocol):
    """A request of httpx."""

    @property
    def headers(self) -> Any: ...
    @property
    def url(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class AnswerBytes:
    """The body of an answer as it arrives, and the keys of its request."""

    chunks: AsyncIterator[bytes]
    keys: Sequence[str] = ()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.chunks

    def __anext__(self) -> Awaitable[bytes]:
        return self.chunks.__anext__()


def find_keys(requests: Sequence[SentRequest], server: ModelServer) -> Sequence[str]:
    """Find the keys in these requests and in the settings, longest first; a redirect may have removed one from a request."""
    sent = [server.api_key] if isinstance(server.api_key, str) else []
    for request in requests:
        headers = cast(Mapping[str, str], request.headers)
        sent += [value for name, value in headers.items() if name == server.auth.lower() or says_secret(name)]
        url = cast(_Url, request.url)
        sent += [value for name, value in url.params.multi_items() if says_secret(name)]
        sent.append(url.password)
    # `Bearer …`, `Basic …`
    keys = {value.rpartition(" ")[2] for value in sent} - {PLACEHOLDER_KEY}
    return tuple(sorted((key for key in keys if len(key) >= SHORTEST_KEY), key=len, reverse=True))


def mask_keys(text: str, keys: Sequence[str]) -> str:
    """Mask these keys in a text."""
    for key in keys:
        text = text.replace(key, MASK)
    return text


def mask_body(value: object, keys: Sequence[str]) -> object:
    """Mask these keys in the body of an answer."""
    match value:
        case str():
            return mask_keys(value, keys)
        case list():
            return [mask_body(item, keys) for item in cast(list[object], value)]
        case dict():
            entries = cast(dict[object, object], value).items()
            return {mask_body(key, keys): mask_body(item, keys) for key, item in entries}
        case _:
            return value


def mask_error(error: ModelError, keys: Sequence[str]) -> None:
    """Mask these keys in an error."""
    error.args = tuple(mask_body(part, keys) for part in error.args)
    error.body = mask_body(error.body, keys)


def mask_errors(deltas: Sequence[Delta], keys: Sequence[str]) -> None:
    """Mask these keys in the errors among some deltas."""
    if keys and ErrorDelta in map(type, deltas):
        for delta in deltas:
            if isinstance(delta, ErrorDelta):
                mask_error(delta.error, keys)


def says_secret(name: str) -> bool:
    """Return whether a header, or a part of an address, is named like one that holds a secret."""
    lowered = name.lower()
    return any(word in lowered for word in _WORDS)
