"""Start and end spans so that an error in a processor or a sampler never reaches a run."""

import logging
from typing import Any

from opentelemetry.trace import INVALID_SPAN, Span, Tracer

logger = logging.getLogger("flowkit.telemetry")


def start_span(tracer: Tracer, name: str, *parts: Any, **options: Any) -> Span:
    """Start a span; where that raises, return one that records nothing."""
    try:
        return tracer.start_span(name, *parts, **options)
    except Exception:  # a sampler's or a processor's
        logger.exception("the span %r can't be started; it is left out", name)
        return INVALID_SPAN


def end_span(span: Span, end_ns: int) -> None:
    """End a span; log an exception instead of raising it."""
    try:
        span.end(end_ns)
    except Exception:  # a processor's
        logger.exception("a span can't be ended as its processors want")
