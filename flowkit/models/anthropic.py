"""Claude models over Anthropic's Messages API, at Anthropic or at a compatible server.

Requests go through the `openai` package's client, as those of `OpenAIModel` do: it returns the bytes, and the run retries.
So no further package is needed. Bedrock and Vertex require signed requests and are reached by a client of the vendor's
package.
"""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import timedelta
from importlib import import_module
from typing import Literal

from flowkit.codec import JSON
from flowkit.errors import ConfigurationError
from flowkit.models.base import Delta, ModelRequest
from flowkit.models.pricing import Price
from flowkit.models.wire.anthropic_request import build_anthropic_body, check_anthropic_settings, find_betas
from flowkit.models.wire.anthropic_words import ANTHROPIC_URL, ANTHROPIC_VERSION
from flowkit.models.wire.bytes_to_deltas import stream_deltas
from flowkit.models.wire.network_guard import check_server_allowed
from flowkit.models.wire.settings import (
    NO_HEADERS,
    PLACEHOLDER_KEY,
    ApiKey,
    Auth,
    Headers,
    HttpClient,
    ModelServer,
    Settings,
    Timeout,
    as_timeout,
    fixed_headers,
    headers_of,
    split_query,
)
from flowkit.models.wire.thinking import Thinking
from flowkit.models.wire.tool_media import refuse_sound, tell_refused
from flowkit.models.wire.vendor_clients import VendorClient, open_vendor_bytes
from flowkit.models.wire.vendors import is_host


@dataclass(frozen=True, eq=False)
class AnthropicModel:
    """A Claude model by name. Its settings are data: `dataclasses.replace` makes a variant.

    `base_url` and `api_key` default to `ANTHROPIC_BASE_URL` and `ANTHROPIC_API_KEY`; a compatible server may need no
    key. `auth="bearer"` sends the key as a bearer token, as gateways and `ANTHROPIC_AUTH_TOKEN` require.
    `thinking` is True, False, an effort such as `"low"`, or a budget in tokens, as the model's version supports it.
    `thinking_display="summarized"` makes newer models show a summary. A setting that the model doesn't support raises
    `ConfigurationError` here, not in the middle of a run.

    `cache` marks the instructions and the conversation for the server's prompt cache, for five minutes (`"5m"`) or an
    hour (`"1h"`); None marks nothing. `server_tools` are tools that run at the vendor, in its own format, such as
    `{"type": "web_search_20250305", "name": "web_search"}`; their results are sent back with the conversation.
    `parallel_calls=False` limits the model to one call at a time. `eager_input=True` streams arguments as they are
    written, without the server's check. `betas` are names for the header `anthropic-beta`.

    `client` is a client of the vendor's package that signs requests, such as `AsyncAnthropicBedrock` or
    `AsyncAnthropicVertex`; it holds the address and the key. The other settings are those of `OpenAIModel`.

    >>> AnthropicModel("claude-sonnet-5", api_key="sk-…", thinking="low").source
    'anthropic https://api.anthropic.com/v1 claude-sonnet-5'
    """

    model: str
    _: KW_ONLY
    base_url: str | None = None
    api_key: ApiKey | None = field(default=None, repr=False)
    auth: Auth | None = None
    thinking: Thinking = None
    thinking_display: Literal["summarized", "omitted"] | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    cache: Literal["5m", "1h"] | None = "5m"
    server_tools: Sequence[Mapping[str, JSON]] = ()
    parallel_calls: bool = True
    eager_input: bool = False
    json_schema: bool = True
    betas: Sequence[str] = ()
    extra_body: Mapping[str, JSON] = field(default_factory=dict[str, JSON])
    headers: Headers = field(default_factory=dict[str, str], repr=False)
    timeout: float | timedelta | Timeout = 600.0
    max_retries: int = 2
    http_client: HttpClient | None = field(default=None, repr=False)
    client: VendorClient | None = field(default=None, repr=False)
    price: Price | None = None
    server: ModelServer = field(init=False, repr=False)
    settings: Settings = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.cache not in (None, "5m", "1h"):
            raise ConfigurationError(f"cache={self.cache!r}: expected '5m', '1h' or None")
        base_url, api_key, auth = _find_server(self.base_url, self.api_key, self.auth, self.client)
        headers = (("anthropic-version", ANTHROPIC_VERSION), *fixed_headers(self.headers))
        server = ModelServer(
            base_url=base_url,
            api_key=api_key,
            headers=tuple(sorted(dict(headers).items())),
            timeout=as_timeout(self.timeout),
            max_retries=self.max_retries,
            auth=auth,
            key_setting="ANTHROPIC_API_KEY",
            http_client=self.http_client,
        )
        settings = Settings(
            model=self.model,
            base_url=base_url,
            api="anthropic",
            thinking=self.thinking,
            thinking_display=self.thinking_display,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            extra_body=self.extra_body,
            json_schema=self.json_schema,
            cache=self.cache,
            server_tools=tuple(self.server_tools),
            parallel_calls=self.parallel_calls,
            eager_input=self.eager_input,
        )
        check_anthropic_settings(settings)
        for name, value in (("base_url", base_url), ("server", server), ("settings", settings)):
            object.__setattr__(self, name, value)  # the dataclass is frozen for everyone else
        # The `openai` package takes a quarter of a second to import: here, not within the first request of a server.
        import_module("flowkit.models.wire.transport")

    @property
    def name(self) -> str:
        return self.model

    @property
    def source(self) -> str:
        return self.settings.source

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """Stream the answer to one request; leaving the context closes it.

        An answer in which the server pauses is gone on with, and is one answer here.
        """
        refuse_sound(request.messages, "anthropic")
        tell_refused(request.messages, "anthropic")
        return stream_deltas(self, request, self.server.timeout)

    async def make_headers(self, request: ModelRequest) -> Mapping[str, str]:
        """Make the headers that only this request has."""
        return await headers_of(self.headers, request)

    def open(
        self, body: Mapping[str, JSON], headers: Mapping[str, str] = NO_HEADERS
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open the bytes of the answer to a request's body."""
        check_server_allowed(self.server.base_url, self.model)
        sent = self._with_betas(headers, body)
        if self.client is not None:
            return open_vendor_bytes(self.client, self.server, self.model, body, sent)
        from flowkit.models.wire.transport import open_bytes

        return open_bytes(self.server, "anthropic", self.model, body, sent)

    async def count_tokens(self, request: ModelRequest) -> int:
        """Count a request's input tokens by asking the server; no other tokenizer counts them right."""
        from flowkit.models.wire.transport import ask_json

        check_server_allowed(self.server.base_url, self.model)
        if self.client is not None:
            raise ConfigurationError("count_tokens: the clouds count by calls of their own; ask client= for it")
        body = build_anthropic_body(request, replace(self.settings, cache=None))
        kept = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config")
        asked = {name: value for name, value in body.items() if name in kept}
        headers = self._with_betas(await self.make_headers(request), asked)
        answer = await ask_json(self.server, "/messages/count_tokens", self.model, asked, headers)
        count = answer.get("input_tokens")
        return count if isinstance(count, int) else 0

    async def connect(self) -> None:
        """Open the connection that the next request uses; raises `ModelError` where the server can't be reached.

        A `client` of yours opens its own.
        """
        from flowkit.models.wire.transport import connect

        check_server_allowed(self.server.base_url, self.model)
        if self.client is None:
            await connect(self.server, self.model)

    async def aclose(self) -> None:
        """Close the client that this model shares with others on this event loop; the next request opens one anew."""
        from flowkit.models.wire.clients import close_clients

        await close_clients(self.server)

    def _with_betas(self, headers: Mapping[str, str], body: Mapping[str, JSON]) -> Mapping[str, str]:
        own = headers.get("anthropic-beta") or dict(self.server.headers).get("anthropic-beta")
        named = [*([own] if own else []), *self.betas, *find_betas(body, self.model)]
        return {**headers, "anthropic-beta": ",".join(dict.fromkeys(named))} if named else headers


def _find_server(
    base_url: str | None, api_key: ApiKey | None, auth: Auth | None, client: VendorClient | None
) -> tuple[str, ApiKey, Auth]:
    """Find the address, the key and how it is sent, from the arguments or the environment."""
    if client is not None:
        return str(client.base_url).rstrip("/"), PLACEHOLDER_KEY, "bearer"
    found_url = base_url or _read("ANTHROPIC_BASE_URL")
    found_key = api_key or _read("ANTHROPIC_API_KEY")
    if found_key is None and auth != "x-api-key" and (token := _read("ANTHROPIC_AUTH_TOKEN")):
        found_key, auth = token, "bearer"
    if found_url is None and found_key is None:
        raise ConfigurationError(
            "no model server: set ANTHROPIC_API_KEY, or ANTHROPIC_BASE_URL for a server of your own"
        )
    found_url = found_url or ANTHROPIC_URL
    if not found_url.startswith(("http://", "https://")):
        raise ConfigurationError(f"the base URL has to begin with http:// or https://, as in {ANTHROPIC_URL}")
    plain, query = split_query(found_url)
    # The vendor's package adds the version, so addresses are told without it.
    full = plain if plain.endswith("/v1") else f"{plain}/v1"
    return (
        f"{full}?{query}" if query else full,
        found_key or PLACEHOLDER_KEY,
        auth or ("bearer" if is_host(full, "amazonaws.com", "api.aws") else "x-api-key"),
    )


def _read(variable: str) -> str | None:
    return os.environ.get(variable, "").strip() or None
