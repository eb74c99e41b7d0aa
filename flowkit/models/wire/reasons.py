"""Find the reason in the body of an error, whatever its shape.

Every server framework has its own fields for a refusal (`error`, `detail`, `errors`, `Message`), gateways wrap another
server's answer (`metadata.raw`, an object or JSON text in place of a message), and some answer with a list or plain
text. Each is searched here for the sentence that a person wrote.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import cast

from flowkit.codec import JSON

NO_REASON = "no reason given"

_MOST_DEEP = 8
"""How many wrappers are opened; a body may be anybody's."""

_SPECIFIC = (
    "message",
    "Message",
    "msg",
    "detail",
    "details",
    "errorMessage",
    "error_message",
    "error_msg",
    "description",
)
_WRAPPERS = ("error", "errors", "base_resp", "status_msg", "fault", "response", "exception", "cause", "reason", "title")
_CODES = ("status_code", "statusCode", "code", "status", "error_code", "errorCode", "httpStatus", "http_code")
_NAMES = ("type", "code", "status", "error_code", "__type", "name")
_EMPTY_WORDS = re.compile(
    r"(an? )?(internal |upstream |unknown |bad |unspecified )*(error|request|exception)( occurred| from provider)?|"
    r"provider returned error|error from provider.*|(http )?\d{3}|unprocessable entity|forbidden|unauthorized|not found",
    re.IGNORECASE,
)
"""What is said where the reason stands elsewhere in the same body."""
_IS_FINE = frozenset(("", "0", "200", "ok", "success", "none", "null", "false"))
_ERROR_WORDS = re.compile(
    r"\b(errors?|exception|failed|failure|unavailable|overloaded|timed?[ -]?out|too many requests|bad gateway|"
    r"quota|rate limit\w*|unauthorized|forbidden|not found|refused|aborted|traceback)\b",
    re.IGNORECASE,
)
_KEEPS_ALIVE = re.compile(r"\W*(ping|pong|keep[ _-]?alive|heart[ _-]?beat|processing|waiting|ok)\W*", re.IGNORECASE)

_COMES_BACK = re.compile(
    # The account has nothing left.
    r"insufficient (account )?(balance|credits?|funds|quota)\b|balance (is )?(not enough|insufficient|exhausted|too low)|"
    r"(out of|no|not enough) (remaining )?credits?\b|exceeded your current quota|quota (is |has been )?(exhausted|used up)|"
    r"in arrears|余额(不足|已用尽)|欠费|"
    # The key is no key.
    r"(invalid|incorrect|wrong|expired) api[ _-]?key|api[ _-]?key( provided)? (is )?(invalid|incorrect|expired|not valid)|"
    r"(api ?key|密钥|令牌) ?(无效|错误)|无效的 ?(api ?key|密钥|令牌)|"
    # There is no such model.
    r"\bmodel( id| name)?:? ([^\s]+ )?(does not|doesn['’]t|do not|is not|was not|not) (exist|found)|"
    r"(no such|unknown|invalid) model\b|模型不存在",
    re.IGNORECASE,
)
"""What is said of a request that fails again, however often it is sent."""
_PASSES = re.compile(
    r"\b(rate|retry|try again|per (second|minute|hour)|[rt]p[ms]|temporar\w*|currently|later|upstream|server|backend|"
    r"instance|loading|load)\b|稍后",
    re.IGNORECASE,
)
"""What is said of one that may pass, with the same words beside it."""


def comes_back(reason: str) -> bool:
    """Return whether an error's sentence says that the same request fails again; in doubt, it doesn't.

    >>> comes_back("Model does not exist. Please check it carefully.")
    True
    >>> comes_back("You exceeded your current quota. Please retry in 27 s.")
    False
    """
    return _COMES_BACK.search(reason) is not None and _PASSES.search(reason) is None


def find_reason(body: JSON) -> str:
    """Find the sentence that explains the error, in any body; `NO_REASON` when nothing in it does.

    >>> find_reason([{"error": {"code": 429, "message": "Resource exhausted"}}])
    'Resource exhausted'
    >>> find_reason({"detail": [{"loc": ["body", "messages"], "msg": "Field required"}]})
    'body.messages: Field required'
    >>> find_reason({"message": "Provider returned error", "metadata": {"raw": '{"error": {"message": "too long"}}'}})
    'Provider returned error: too long'
    """
    reasons = list(dict.fromkeys(_reasons(body, 0)))
    telling = [reason for reason in reasons if not _EMPTY_WORDS.fullmatch(reason.rstrip("."))]
    if not telling:
        return reasons[0] if reasons else NO_REASON
    outer = reasons[0] if reasons[0].lower().startswith("provider returned") else ""
    return f"{outer}: {telling[0]}" if outer else telling[0]


def find_status(body: JSON, depth: int = 0) -> int | None:
    """Find the HTTP status that a body names, in the error or around it."""
    if depth > _MOST_DEEP:
        return None
    if isinstance(body, list):
        return next((found for item in body if (found := find_status(item, depth + 1)) is not None), None)
    if not isinstance(body, dict):
        return None
    for field in _CODES:
        code = body.get(field)
        if isinstance(code, str) and len(code) == 3 and code.isdecimal():
            code = int(code)
        if isinstance(code, int) and not isinstance(code, bool) and 400 <= code <= 599:
            return code
    inner = (body.get(field) for field in ("error", "errors", "detail", "base_resp"))
    return next((found for item in inner if (found := find_status(item, depth + 1)) is not None), None)


def find_names(body: JSON, depth: int = 0) -> str:
    """Find the error's names for programs (`type`, `code`, `status`), in the error or around it."""
    if depth > _MOST_DEEP:
        return ""
    if isinstance(body, list):
        return " ".join(find_names(item, depth + 1) for item in body[:3])
    if not isinstance(body, dict):
        return ""
    own = [str(body[field]) for field in _NAMES if isinstance(body.get(field), (str, int))]
    return " ".join(
        [*own, *(find_names(body.get(field), depth + 1) for field in ("error", "errors", "detail"))]
    ).strip()


def says_error(event: Mapping[str, JSON]) -> bool:
    """Return True if an event without any part of an answer is an error.

    These are no errors: `{"type": "ping"}`, a number, an id, a filter's result.
    """
    if any(
        event.get(field) for field in ("error", "errors", "exception", "detail", "error_msg", "errorMessage", "fault")
    ):
        return True
    kind = event.get("type")
    if event.get("object") == "error" or (isinstance(kind, str) and kind.lower().endswith(("error", "exception"))):
        return True  # AWS names the kind: throttlingException
    if find_status(dict(event)) is not None or event.get("success") is False or event.get("ok") is False:
        return True
    base = event.get("base_resp")  # MiniMax
    if isinstance(base, dict) and str(base.get("status_code", "")).lower() not in _IS_FINE:
        return True
    said = next((event[field] for field in ("message", "Message", "msg") if isinstance(event.get(field), str)), None)
    if said is None or "object" in event or _KEEPS_ALIVE.fullmatch(str(said)):
        return False
    code = event.get("code", event.get("error_code", event.get("__type")))
    if code is not None:
        return str(code).lower() not in _IS_FINE
    return "type" not in event and "status" not in event


def text_says_error(text: str) -> bool:
    """Return whether text that is no JSON reports an error: `Internal Server Error`, but not `: STILL WORKING`."""
    return not text.lstrip().startswith(":") and _ERROR_WORDS.search(text) is not None


def _reasons(body: JSON, depth: int) -> Iterator[str]:
    """Yield candidates for the reason, the most specific first."""
    if depth > _MOST_DEEP:
        return
    match body:
        case str():
            text = body.strip()
            inner = _read_json(text)
            if inner is not None:
                yield from _reasons(inner, depth + 1)
            elif text:
                yield text
        case list():
            for item in body[:5]:
                yield from _reasons(item, depth + 1)
        case dict():
            where = body.get("loc")
            place = ".".join(map(str, where)) if isinstance(where, list) and where else ""
            for field in _SPECIFIC:
                for reason in _reasons(body.get(field), depth + 1):
                    yield f"{place}: {reason}" if place else reason
            metadata = body.get("metadata")
            if isinstance(metadata, dict):
                yield from _reasons(metadata.get("raw"), depth + 1)
            for field in _WRAPPERS:
                yield from _reasons(body.get(field), depth + 1)
        case _:
            pass


def _read_json(text: str) -> JSON:
    """Read the object or list that a text holds; None for any other text."""
    if not text.startswith(("{", "[")):
        return None
    try:
        value = cast(JSON, json.loads(text, strict=False))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, (dict, list)) else None
