"""Names that can travel: servers take letters, digits, `_` and `-`, at most 64 of them, and a dot breaks some.

A tool may be called anything (`shop.get_order`, `주문_조회`); what travels is an alias, and the way back is a lookup in
the set of tools that was sent, never a parse.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from flowkit.errors import DefinitionError

MAX_CHARS = 64
_TRAVELS = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def make_alias(name: str) -> str:
    """Make the name that travels; the name itself when it can.

    >>> make_alias("get_order"), make_alias("shop.get_order"), make_alias("주문.get")
    ('get_order', 'shop_get_order', 'get_5b1adf12')
    """
    if _TRAVELS.fullmatch(name):
        return name
    alias = re.sub(r"[^a-zA-Z0-9_-]+", "_", name)
    if name.isascii() and len(alias) <= MAX_CHARS:
        return alias
    # Letters were lost, so that other names would look the same.
    return _mark(name, alias)


def _mark(name: str, alias: str) -> str:
    """Add a part of the name's hash to the alias, which distinguishes it from those of other names."""
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{alias.strip('_')[: MAX_CHARS - 9] or 'tool'}_{mark}"


def make_aliases(names: Iterable[str], *, marked: Collection[str] = ()) -> Mapping[str, str]:
    """Make an alias for each name; return the names by alias.

    Of two that would travel as one, the later gets a mark if it is among `marked`: the names that no programmer can
    change, since a server gave them. Else raises `DefinitionError`.
    """
    aliases: dict[str, str] = {}
    for name in names:
        alias = make_alias(name)
        if aliases.get(alias, name) != name and name in marked:
            alias = _mark(name, alias)
        other = aliases.setdefault(alias, name)
        if other != name:
            raise DefinitionError(f"tools {other!r} and {name!r} would both travel as {alias!r}; rename one", tool=name)
    return MappingProxyType(aliases)
