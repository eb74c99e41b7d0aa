"""A call, and the references in its arguments: the one kind of node and the one kind of edge.

Three spellings, one value: `Needs` and recipes make `Reference` directly, a model writes
`{"from_call": "get_order", "path": "/address/city"}` (RFC 6901), YAML writes `${{ steps.get_order.address.city }}`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Reference:
    """A value inside another call's result; the empty path is the whole of it."""

    call_id: str
    path: tuple[str | int, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool to run with these arguments; values, or lists and dicts of values, may be `Reference`.

    `id` is unique in its graph. Two calls with the same name and arguments are two calls.
    """

    id: str
    name: str
    arguments: Mapping[str, object] = field(default_factory=dict[str, object])
