"""Rewrite a request when the server refuses its form.

Some refusals concern a form that every such request will have: consecutive messages of one role, or tools together
with a schema for the answer. The request is rewritten in a form that the server accepts, once for each form. What was
learned about a model is kept for the life of the process.
"""

import logging
import re
from dataclasses import replace

from flowkit.errors import ModelError
from flowkit.models.base import ModelRequest
from flowkit.models.wire.settings import Settings

MAX_LEARNED = 1000
"""Of how many models it is remembered; a process asks a few."""

logger = logging.getLogger("flowkit.models")

_ALTERNATE = re.compile(
    r"roles? must (be )?alternat|must alternate between|alternat\w+ (between )?(user|roles?)|consecutive \w+ messages?|"
    r"after the optional system message",
    re.IGNORECASE,
)
_TOOLS = r"\b(tools?|function.?call\w*)\b"
_FORMAT = r"\b(response.?format|response.?schema|response.?mime.?type|json.?schema|json mode|structured output)"
_PAIR = re.compile(f"{_TOOLS}.{{0,80}}{_FORMAT}|{_FORMAT}.{{0,80}}{_TOOLS}", re.IGNORECASE | re.DOTALL)

_learned: dict[str, Settings] = {}


def recall(settings: Settings) -> Settings:
    """Add what was learned of this model to the settings."""
    learned = _learned.get(settings.source)
    return settings if learned is None else _join(settings, learned)


def adapt(settings: Settings, request: ModelRequest, error: ModelError) -> Settings | None:
    """Adapt the settings to a server that refused a request in these words; None when the words don't help."""
    if error.status in (None, 401, 403, 404, 429):
        return None
    said = f"{error} {error.body}"
    if not settings.alternate_roles and _ALTERNATE.search(said):
        return replace(settings, alternate_roles=True)
    has_pair = bool(request.tools) and request.output_schema is not None
    if has_pair and settings.schema_with_tools and _PAIR.search(said):
        return replace(settings, schema_with_tools=False)
    return None


def learn(settings: Settings) -> None:
    """Remember the form in which a server took a request that it had refused in another."""
    logger.info(
        "%s refuses requests as they were made; from now on: alternate_roles=%s, schema_with_tools=%s",
        settings.source,
        settings.alternate_roles,
        settings.schema_with_tools,
    )
    if len(_learned) < MAX_LEARNED:
        _learned[settings.source] = settings


def _join(settings: Settings, learned: Settings) -> Settings:
    return replace(
        settings,
        alternate_roles=settings.alternate_roles or learned.alternate_roles,
        schema_with_tools=settings.schema_with_tools and learned.schema_with_tools,
    )
