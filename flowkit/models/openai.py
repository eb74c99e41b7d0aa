"""Models at any OpenAI-compatible server: OpenAI, a gateway, or a local server.

The request goes out through the `openai` package (keys, Azure); the bytes of the answer are read by our own
reader, which takes a tenth of the time of the package's stream objects and follows what servers really send.
"""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from importlib import import_module

from flowkit.codec import JSON
from flowkit.errors import ConfigurationError
from flowkit.models.base import Delta, ModelRequest
from flowkit.models.pricing import Price
from flowkit.models.wire.bytes_to_deltas import stream_deltas
from flowkit.models.wire.network_guard import check_server_allowed
from flowkit.models.wire.settings import (
    DEFAULT_BASE_URL,
    NO_HEADERS,
    PLACEHOLDER_KEY,
    ApiKey,
    Headers,
    HttpClient,
    ModelServer,
    Settings,
    Timeout,
    as_timeout,
    fixed_headers,
    headers_of,
    takes_json_schema,
    usual_api,
)
from flowkit.models.wire.thinking import Api, Dialect, Thinking, thinking_fields
from flowkit.models.wire.tool_media import refuse_sound, tell_refused


@dataclass(frozen=True, eq=False)
class OpenAIModel:
    """A model by name. Its settings are data: `dataclasses.replace` makes a variant.

    `base_url` and `api_key` default to `OPENAI_BASE_URL` and `OPENAI_API_KEY`; a server other than OpenAI's may need
    no key. Models with the same address, key and headers share one HTTP client. `thinking` is
    True, False, an effort such as `"low"`, or a budget in tokens; a setting that the vendor doesn't support raises
    `ConfigurationError` here, not in the middle of a run. `api` is the Responses API for models that think at OpenAI's
    own address, which take no tools over Chat Completions any more, and Chat Completions for all others, also for the
    same models behind a gateway. `json_schema=False` is for servers without structured output: the schema goes into
    the instructions, with a request for JSON. `text_calls=True` is for servers that leave their model's calls in the text.
    `alternate_roles=True` merges consecutive messages of one role. `schema_with_tools=False` puts the schema of an
    answer into the instructions if a request has tools. If a server refuses such requests, both happen automatically.
    Fields of `extra_body` are sent unchanged; None removes a field. `price` overrides the table of known prices.
    `api_version` is only for Azure's older addresses (`https://NAME.openai.azure.com`). `max_retries` is how often a run
    retries after a temporary refusal; with 0 the run's own `attempts` decide.

    `api_key` can be a function, also an `async` one, that is called before each request, and `headers` a function of the
    request. `timeout` is in seconds, or a `Timeout`. `http_client` is your own `httpx2.AsyncClient`, or a function that
    creates one for each event loop, for certificates, proxies and the like.

    >>> OpenAIModel("qwen3", base_url="http://127.0.0.1:8080/v1", thinking=False).source
    'chat http://127.0.0.1:8080/v1 qwen3'
    """

    model: str
    _: KW_ONLY
    base_url: str | None = None
    api_key: ApiKey | None = field(default=None, repr=False)
    api: Api | None = None
    thinking: Thinking = None
    thinking_dialect: Dialect | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    extra_body: Mapping[str, JSON] = field(default_factory=dict[str, JSON])
    include_usage: bool = True
    json_schema: bool | None = None
    text_calls: bool = False
    alternate_roles: bool = False
    schema_with_tools: bool = True
    headers: Headers = field(default_factory=dict[str, str], repr=False)
    api_version: str | None = None
    timeout: float | timedelta | Timeout = 600.0
    max_retries: int = 2
    http_client: HttpClient | None = field(default=None, repr=False)
    price: Price | None = None
    server: ModelServer = field(init=False, repr=False)
    settings: Settings = field(init=False, repr=False)

    def __post_init__(self) -> None:
        base_url, api_key = _find_server(self.base_url, self.api_key)
        api = self.api or usual_api(self.model, base_url)
        server = ModelServer(
            base_url=base_url,
            api_key=api_key,
            headers=fixed_headers(self.headers),
            api_version=self.api_version,
            timeout=as_timeout(self.timeout),
            max_retries=self.max_retries,
            http_client=self.http_client,
        )
        settings = Settings(
            model=self.model,
            base_url=base_url,
            api=api,
            thinking=self.thinking,
            thinking_dialect=self.thinking_dialect,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            extra_body=self.extra_body,
            include_usage=self.include_usage,
            json_schema=takes_json_schema(base_url, api) if self.json_schema is None else self.json_schema,
            text_calls=self.text_calls,
            alternate_roles=self.alternate_roles,
            schema_with_tools=self.schema_with_tools,
        )
        thinking_fields(self.thinking, model=self.model, base_url=base_url, api=api, dialect=self.thinking_dialect)
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
        """Stream the answer to one request; leaving the context closes it."""
        refuse_sound(request.messages, self.settings.api)
        tell_refused(request.messages, self.settings.api)
        return stream_deltas(self, request, self.server.timeout)

    async def make_headers(self, request: ModelRequest) -> Mapping[str, str]:
        """Make the headers that only this request has."""
        return await headers_of(self.headers, request)

    def open(
        self, body: Mapping[str, JSON], headers: Mapping[str, str] = NO_HEADERS
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open the bytes of the answer to a request's body."""
        from flowkit.models.wire.transport import open_bytes

        check_server_allowed(self.server.base_url, self.model)
        return open_bytes(self.server, self.settings.api, self.model, body, headers)

    async def connect(self) -> None:
        """Open the connection that the next request uses; raises `ModelError` where the server can't be reached."""
        from flowkit.models.wire.transport import connect

        check_server_allowed(self.server.base_url, self.model)
        await connect(self.server, self.model)

    async def aclose(self) -> None:
        """Close the client that this model shares with others on this event loop; the next request opens one anew."""
        from flowkit.models.wire.clients import close_clients

        await close_clients(self.server)


def _find_server(base_url: str | None, api_key: ApiKey | None) -> tuple[str, ApiKey]:
    """Find the address and the key, from the arguments or the environment."""
    found_url = base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or None
    found_key = api_key or os.environ.get("OPENAI_API_KEY", "").strip() or None
    if found_url is None and found_key is None:
        raise ConfigurationError("no model server: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server of your own")
    if found_url is not None and not found_url.startswith(("http://", "https://")):
        raise ConfigurationError("the base URL has to begin with http:// or https://, as in http://127.0.0.1:11434/v1")
    return found_url or DEFAULT_BASE_URL, found_key or PLACEHOLDER_KEY
