"""The overlap of resources by their names: the one rule for the order of calls and for cached reads.

A name with a star is a *family* of all names with the same prefix: `order:*` has those that start with `order:`. Two
names overlap if they are equal, or if one is in the other's family. The prefix of a family ends at an edge: the start
of a name, or the position after one of its first few characters that are neither letter nor digit. A family with
another prefix (`order*`) is widened to the edge before it. So a name is in few families, and they can be listed from
it.
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
    """Return whether a write on one of them may change the result of a read of the other.

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
