"""Block requests to other machines in tests, so that no test costs money or depends on the network."""

import os
from urllib.parse import urlsplit

from flowkit.errors import ConfigurationError

VARIABLE = "FLOWKIT_REAL_MODELS"
"""Set to `refuse` by flowkit's pytest plugin for every test that doesn't allow real models."""


def check_server_allowed(base_url: str, model: str) -> None:
    """Raise `ConfigurationError` for a server elsewhere while real models are refused; this machine's are allowed."""
    if os.environ.get(VARIABLE) != "refuse" or is_local(base_url):
        return
    raise ConfigurationError(
        f"a test asks the model {model!r} at {base_url}; use flowkit.testing.ScriptedModel, or allow it with "
        "@pytest.mark.real_model or --flowkit-real-models"
    )


def is_local(base_url: str) -> bool:
    """Return whether the address is this machine's own.

    >>> is_local("http://127.0.0.1:8080/v1"), is_local("https://api.openai.com/v1")
    (True, False)
    """
    host = urlsplit(base_url).hostname or ""
    return host in ("localhost", "::1") or host.endswith(".localhost") or host.startswith("127.")
