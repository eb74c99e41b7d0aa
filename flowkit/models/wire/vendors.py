"""Recognise the vendor of a model by its name and of a server by its address.

Gateways offer the models of many vendors, and vendors differ in a few fields of a request. Nothing here uses the
network: an unknown name is `other`, and is sent what most servers accept.
"""

import re
from functools import lru_cache
from typing import Literal
from urllib.parse import urlsplit

Family = Literal["openai", "claude", "gemini", "deepseek", "qwen", "mistral", "glm", "kimi", "grok", "other"]

_FAMILIES: tuple[tuple[str, Family], ...] = (
    (r"gpt-oss", "openai"),
    (r"(gpt-|chatgpt|o\d(-|$)|codex)", "openai"),
    (r"claude", "claude"),
    (r"gemini", "gemini"),
    (r"deepseek", "deepseek"),
    (r"(qwen|qwq)", "qwen"),
    (r"(mistral|ministral|magistral|mixtral|devstral|codestral|pixtral)", "mistral"),
    (r"glm", "glm"),
    (r"(kimi|moonshot)", "kimi"),
    (r"grok", "grok"),
)


@lru_cache(256)  # each request asks it several times
def family_of(model: str) -> Family:
    """Return the vendor of this model, with or without a prefix of a gateway or cloud.

    >>> family_of("openrouter/anthropic/claude-sonnet-4.5"), family_of("o4-mini"), family_of("llama-3.3")
    ('claude', 'openai', 'other')
    """
    name = short_name(model)
    for pattern, family in _FAMILIES:
        if re.search(rf"(^|[.:_@]){pattern}", name):
            return family
    return "other"


def short_name(model: str) -> str:
    """Return the part of a name behind the gateway's prefixes, in lower case.

    >>> short_name("openai/GPT-4.1")
    'gpt-4.1'
    """
    return model.rsplit("/", 1)[-1].lower()


def host_of(base_url: str) -> str:
    """Return the host in an address, in lower case.

    >>> host_of("https://api.openai.com/v1")
    'api.openai.com'
    """
    return (urlsplit(base_url).hostname or "").lower()


def is_host(base_url: str, *names: str) -> bool:
    """Return whether the address is on one of these hosts or below it."""
    host = host_of(base_url)
    return any(host == name or host.endswith(f".{name}") for name in names)


def is_openai_host(base_url: str) -> bool:
    """Return whether the address is OpenAI itself, or its models on Azure."""
    return is_host(base_url, "openai.com", "openai.azure.com", "cognitiveservices.azure.com")


def thinks(model: str) -> bool:
    """Return whether this is one of OpenAI's models that think before they answer; those for chat and search don't.

    >>> [name for name in ("gpt-4.1", "gpt-5-mini", "o3", "gpt-5-chat-latest", "gpt-5-search-api") if thinks(name)]
    ['gpt-5-mini', 'o3']
    """
    name = short_name(model)
    if "-chat" in name or "-search-api" in name:
        return False
    return re.match(r"o\d(-|$)|gpt-oss|gpt-([5-9]|\d\d)|codex", name) is not None


def version_of(model: str) -> tuple[int, int]:
    """Return the version in a model's name; (0, 0) when there is none.

    A date isn't a version: `claude-sonnet-4-20250514` is 4.0.

    >>> version_of("claude-opus-4-6"), version_of("gemini-2.5-pro"), version_of("claude-sonnet-4-20250514")
    ((4, 6), (2, 5), (4, 0))
    """
    found = re.search(r"(?<![\d.])(\d{1,2})(?:[.-](\d{1,2}))?(?!\d)", short_name(model))
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)
