"""Figures as people read them."""

from rich.cells import cell_len, set_cell_size

from flowkit.measure.figures import Share, Spread


def say_seconds(seconds: float | None) -> str:
    """Write a time in as many digits as matter.

    >>> [say_seconds(value) for value in (0.0, 0.0042, 0.123, 1.234, 12.34, None)]
    ['0 ms', '4 ms', '123 ms', '1.23 s', '12.3 s', '–']
    """
    if seconds is None:
        return "–"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"


def say_median(spread: Spread | None) -> str:
    """Write the median of times."""
    return say_seconds(None if spread is None else spread.median)


def say_range(spread: Spread | None) -> str:
    """Write the middle half of times.

    >>> say_range(Spread(0.3, 0.25, 1.5))
    '250 ms–1.50 s'
    >>> say_range(Spread(0.3, 0.25, 0.35))
    '250–350 ms'
    """
    if spread is None:
        return ""
    low, high = say_seconds(spread.low), say_seconds(spread.high)
    return f"{low.split()[0]}–{high}" if low.split()[-1] == high.split()[-1] else f"{low}–{high}"


def say_share(share: Share | None) -> str:
    """Write a share as count of count."""
    return "–" if share is None else f"{share.right}/{share.count}"


def say_share_range(share: Share | None) -> str:
    """Write the worst and the best round."""
    return "" if share is None else f"{share.low * 100:.0f}–{share.high:.0%}"


def say_number(spread: Spread | None) -> str:
    """Write a median of counts.

    >>> say_number(Spread(812.0, 800.0, 900.0)), say_number(Spread(12345.0, 0.0, 0.0)), say_number(Spread(1.5, 1, 2))
    ('812', '12.3k', '1.5')
    """
    if spread is None:
        return "–"
    value = spread.median
    if value >= 9_999.5:
        return f"{value / 1000:.1f}k"
    return f"{value:.0f}" if value == int(value) else f"{value:.1f}"


def say_cost(cost_usd: float | None) -> str:
    """Write dollars, small ones in thousandths of a cent.

    >>> [say_cost(value) for value in (0.0, 0.0000031, 0.00042, 0.0312, 1.5, None)]
    ['$0', '$0.0000031', '$0.00042', '$0.031', '$1.50', '–']
    """
    if cost_usd is None:
        return "–"
    if cost_usd == 0:
        return "$0"
    if cost_usd >= 1:
        return f"${cost_usd:.2f}"
    text = f"{cost_usd:.2g}"
    return f"${cost_usd:.7f}".rstrip("0") if "e" in text else f"${text}"


def shorten(text: str, limit: int) -> str:
    """Shorten to one line of at most that many cells of a terminal, of which a Hangul syllable takes two.

    >>> shorten("one  two\\nthree", 9), shorten("주문은 어디에 있나요", 9)
    ('one two…', '주문은…')
    """
    line = " ".join(text.split())
    if cell_len(line) <= limit:
        return line
    return set_cell_size(line, limit - 1).rstrip() + "…"


def pad(text: str, width: int, *, right: bool = False) -> str:
    """Fill up with spaces to so many cells of a terminal.

    >>> pad("주문", 6), pad("ab", 4, right=True)
    ('주문  ', '  ab')
    """
    space = " " * (width - cell_len(text))
    return space + text if right else text + space
