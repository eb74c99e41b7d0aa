"""llama.cpp's own HTTP server, inside this process, on a free port of the loopback address.

It is called like any other server, over HTTP, with a key that only this process has.
"""

import os
import secrets
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flowkit.codec import JSON
from flowkit.errors import ConfigurationError

_TEMPLATE = Path(__file__).with_name("hermes.jinja")
CONTEXT_TOKENS = 4096
_ANYTHING: Mapping[str, JSON] = {"messages": [{"role": "user", "content": "Hi"}]}


class LlamaServer:
    """Serve one model file until `close`; the constructor returns after the server has answered `first`.

    Requests that begin like `first` are answered sooner, since the server caches the prompt's prefix.
    Raises `ConfigurationError` if the package `xllamacpp` isn't installed.
    """

    def __init__(self, weights: Path, first: Mapping[str, JSON] = _ANYTHING) -> None:
        require_xllamacpp()
        xllamacpp: Any = import_module("xllamacpp")
        parameters: Any = xllamacpp.CommonParams()
        parameters.model.path = str(weights)
        parameters.chat_template = _TEMPLATE.read_text()
        parameters.use_jinja = True
        parameters.cache_ram_mib = 0  # its default of 8 GiB let memory grow to three times the model's
        parameters.n_ctx = CONTEXT_TOKENS
        parameters.n_parallel = 1
        parameters.cpuparams.n_threads = 1  # one thread was steadier than two on a busy machine
        parameters.cpuparams_batch.n_threads = max(1, min(4, (os.cpu_count() or 1) // 2))  # for reading the prompt
        parameters.ui = False
        parameters.verbosity = -1
        parameters.hostnames = ["127.0.0.1"]
        parameters.port = 0  # the system chooses one; a port that was free a moment ago may be taken
        parameters.cors_origins = "http://127.0.0.1"
        self.api_key = secrets.token_urlsafe(16)
        parameters.api_keys = [self.api_key]
        # In a thread, where Ctrl-C doesn't come between the start and the first answer.
        with ThreadPoolExecutor(1) as thread:
            self._server: Any = thread.submit(_start, xllamacpp, parameters, first).result()
        self.base_url: str = f"{self._server.listening_address}/v1"

    def close(self) -> None:
        """Stop listening and free the model's memory."""
        self._server = None


def _start(xllamacpp: Any, parameters: Any, first: Mapping[str, JSON]) -> Any:
    """Start the server and wait for its answer: closing one whose loop hasn't begun would wait forever."""
    server = xllamacpp.Server(parameters)
    server.handle_chat_completions({**first, "max_tokens": 1})
    return server


def require_xllamacpp() -> None:
    """Raise, in one sentence, where the embedded model can't run."""
    if find_spec("xllamacpp") is None:
        raise ConfigurationError(
            "the embedded model needs the package xllamacpp, which has wheels for Linux, macOS 13 and Windows x64 "
            f"(here: {sys.platform}): pip install 'flowkit-agents[local]', or give --base-url or OPENAI_API_KEY"
        )
