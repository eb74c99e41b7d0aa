"""`flowkit cache`: inspect or clear cached results."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.table import Column, Table

from flowkit import codec
from flowkit.cache import CacheStats, DiskCache, RedisCache, ShownEntry, open_default_cache
from flowkit.cli.options import AsJson, CacheAddress, CommandGroup
from flowkit.cli.output import make_console, print_json, say, say_bytes, say_exactly
from flowkit.display.words import say_count
from flowkit.errors import ConfigurationError, StoreError
from flowkit.graph.pictures.timeline import format_seconds

app = typer.Typer(cls=CommandGroup, help="Inspect or clear cached results.", no_args_is_help=True)


@app.command()
def stats(as_json: AsJson = False, cache: CacheAddress = None) -> None:
    """Show hits, misses, age and size for each tool."""
    with _open() as opened:
        found = opened.get_stats()
        if isinstance(opened, RedisCache) and found.errors:
            raise StoreError(f"the cache at {opened.url} can't be read")
        if as_json:
            print_json(_stats_to_json(found))
            return
        console = make_console()
        console.print(f"{_say_place(opened)}: {_say_totals(found)}", soft_wrap=True)
        if found.tools:
            console.print(_draw_tools(found))
        for count, one, more in (
            (found.errors, "time the cache couldn't be read or written", "times the cache couldn't be read or written"),
            (found.too_large, "result too large to cache", "results too large to cache"),
            (found.not_json, "result that wasn't JSON", "results that weren't JSON"),
        ):
            if count:
                console.print(f"{count} {one if count == 1 else more}")


@app.command()
def clear(
    tool: Annotated[str | None, typer.Option(help="Clear only results of this tool.")] = None,
    resource: Annotated[
        str | None, typer.Option(help="Clear only results that read this resource, such as order:ORD-1002.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Clear only results of this user.")] = None,
    cache: CacheAddress = None,
) -> None:
    """Clear cached results: all of them, or those of a tool, a resource or a user."""
    with _open() as opened:
        cleared = asyncio.run(opened.clear(tool=tool, resource=resource, user=user))
    print(f"{say_count(cleared, 'entry', 'entries')} cleared")


@app.command()
def show(
    key: Annotated[str, typer.Argument(help="The key of a result, or a prefix that only one key has.")],
    as_json: AsJson = False,
    cache: CacheAddress = None,
) -> None:
    """Show one cached result in full."""
    with _open() as opened:
        entry = opened.show(key)
    if entry is None:
        raise ConfigurationError(f"no entry, or more than one, whose key begins with {key!r}")
    if as_json:
        print_json(_entry_to_json(entry))
        return
    age = "of unknown age" if entry.age_s is None else f"{format_seconds(entry.age_s)} old"
    fresh = "" if entry.is_fresh else ", no longer fresh"
    user = "" if entry.label.user is None else f", user {entry.label.user}"
    say(f"{entry.key}\n{entry.label.tool}{user}: {age}, kept for {format_seconds(entry.ttl_s)}{fresh}")
    say_exactly(entry.error if entry.error is not None else codec.dumps(entry.value).decode())


@app.command()
def path(cache: CacheAddress = None) -> None:
    """Print the cache folder, or the address of the cache's server."""
    with _open() as opened:
        print(_say_place(opened))


@contextmanager
def _open() -> Generator[DiskCache | RedisCache]:
    """Open the cache that the environment names; raises `ConfigurationError` if it is off."""
    cache = open_default_cache()
    if not isinstance(cache, DiskCache | RedisCache):
        raise ConfigurationError("the cache is turned off by FLOWKIT_CACHE")
    try:
        yield cache
    finally:
        asyncio.run(cache.close())


def _say_place(cache: DiskCache | RedisCache) -> str:
    return str(cache.path) if isinstance(cache, DiskCache) else cache.url


def _say_totals(found: CacheStats) -> str:
    stored: list[str] = []
    if found.entries is not None and found.size_bytes is not None:
        stored = [say_count(found.entries, "entry", "entries"), say_bytes(found.size_bytes)]
    dropped = [] if found.policy is None else [f"maxmemory-policy {found.policy}"]
    return ", ".join([*stored, say_count(found.hits, "hit"), say_count(found.misses, "miss", "misses"), *dropped])


def _draw_tools(found: CacheStats) -> Table:
    figures = (Column(name, justify="right") for name in ("hits", "misses", "entries", "size", "youngest", "oldest"))
    table = Table("tool", *figures, box=None, pad_edge=False)
    for name, tool in sorted(found.tools.items()):
        ages = ("" if age is None else format_seconds(age) for age in (tool.youngest_s, tool.oldest_s))
        entries = "" if tool.entries is None else str(tool.entries)
        size = "" if tool.size_bytes is None else say_bytes(tool.size_bytes)
        table.add_row(name, str(tool.hits), str(tool.misses), entries, size, *ages)
    return table


def _stats_to_json(found: CacheStats) -> codec.JSON:
    return {
        "entries": found.entries,
        "size_bytes": found.size_bytes,
        "hits": found.hits,
        "misses": found.misses,
        "errors": found.errors,
        "too_large": found.too_large,
        "not_json": found.not_json,
        "policy": found.policy,
        "tools": {
            name: {
                "hits": tool.hits,
                "misses": tool.misses,
                "entries": tool.entries,
                "size_bytes": tool.size_bytes,
                "youngest_s": tool.youngest_s,
                "oldest_s": tool.oldest_s,
            }
            for name, tool in sorted(found.tools.items())
        },
    }


def _entry_to_json(entry: ShownEntry) -> codec.JSON:
    return {
        "key": entry.key,
        "tool": entry.label.tool,
        "user": entry.label.user,
        "resources": list(entry.label.resources),
        "value": entry.value,
        "error": entry.error,
        "age_s": entry.age_s,
        "ttl_s": entry.ttl_s,
        "size_bytes": entry.size_bytes,
        "is_fresh": entry.is_fresh,
    }
