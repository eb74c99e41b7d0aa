"""Which resources are parts of one another, by their names alone: the one rule for order and for cached reads.

A name with a star is a *family*: all names that begin with what stands before its first star, `order:*` those that
begin with `order:`. Two names overlap where one is the other, or lies in the other's family. A family begins at an
edge, which is the start of a name or the place behind one of its first few marks that are neither letter nor digit;
one that would begin elsewhere (`order*`) is widened to the edge before. So a name lies in few families, and they can
be listed from it.
"""

MAX_EDGES = 4
"""How many of a name's marks count as edges: a date or an id in a name has many."""


def find_family(name: str) -> str | None:
    """Find the prefix that all names of this family have; None for the name of one thing.

    >>> find_family("shop:*:order:7"), find_family("order*"), find_family("order:7")
    ('shop:', '', None)
    """
    star = name.find("*")
    if star < 0:
        return None
    return max((edge for edge in list_edges(name) if len(edge) <= star), key=len)


def list_edges(name: str) -> list[str]:
    """List every family that the name lies in, by prefix, the widest first.

    >>> list_edges("shop:a:order:7")
    ['', 'shop:', 'shop:a:', 'shop:a:order:']
    """
    edges = [""]
    for place, mark in enumerate(name):
        if not mark.isalnum() and mark != "*":
            edges.append(name[: place + 1])
            if len(edges) > MAX_EDGES:
                break
    return edges


def overlap(one: str, other: str) -> bool:
    """Return whether a write on one of them may change what a read of the other found.

    >>> overlap("order:*", "order:7"), overlap("order:7", "order:8"), overlap("*", "order:7")
    (True, False, True)
    """
    family, other_family = find_family(one), find_family(other)
    if family is None and other_family is None:
        return one == other
    if family is None:
        return one.startswith(other_family or "")
    if other_family is None:
        return other.startswith(family)
    return family.startswith(other_family) or other_family.startswith(family)
