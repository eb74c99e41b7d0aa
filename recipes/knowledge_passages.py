"""Passages of documents: what one search result is, read from Markdown, plain text and PDF.

A passage is at most as long as the sentence embeddings read, and knows its file and the heading that it stands under,
which is what an answer cites.
"""

import logging
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unicodedata import normalize

from flowkit import ConfigurationError

SUFFIXES = (".md", ".txt", ".pdf")
LONGEST_CHARACTERS = 900
"""About 220 tokens of English: what one vector can stand for."""

_HEADING = re.compile(r"#{1,6}\s+(?P<words>.+?)\s*#*$")
_FENCE = re.compile(r"\s*(```|~~~)")


class Unreadable(Exception):
    """A document that can't be read; the others can."""


@dataclass(frozen=True)
class Section:
    """A piece of a document under its heading."""

    heading: str
    text: str


def read_sections(path: Path) -> list[Section]:
    """Read the document's passages, in order.

    Raises `Unreadable`, and `ConfigurationError` for a PDF where the package that reads it isn't installed.
    """
    try:
        if path.suffix.lower() == ".pdf":
            found = _read_pdf(path)
        else:
            text = _decode(path.read_bytes())
            found = _split_markdown(text) if path.suffix.lower() == ".md" else [Section("", text)]
    except OSError as error:
        raise Unreadable(str(error)) from error
    return [Section(_compose(section.heading), _compose(piece)) for section in found for piece in cut(section.text)]


def is_document(path: Path) -> bool:
    """Return whether this is a file of a kind that can be read, in whatever case its ending is written."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _compose(text: str) -> str:
    return normalize("NFC", text)


def _decode(data: bytes) -> str:
    """Decode a text file: UTF-8, or UTF-16 where a byte order mark says so; line ends become those of Unix."""
    try:
        text = data.decode("utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable("its text isn't UTF-8: save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def cut(text: str) -> Iterator[str]:
    """Cut the text into pieces that aren't too long, each as many whole paragraphs, or else lines, as fit.

    >>> list(cut("a\\n\\nb"))
    ['a\\n\\nb']
    """
    piece = ""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        for part in _cut_paragraph(paragraph):
            if piece and len(piece) + len(part) + 2 > LONGEST_CHARACTERS:
                yield piece
                piece = ""
            piece = f"{piece}\n\n{part}" if piece else part
    if piece:
        yield piece


def _cut_paragraph(paragraph: str) -> Iterator[str]:
    piece = ""
    for line in paragraph.splitlines():
        if piece and len(piece) + len(line) + 1 > LONGEST_CHARACTERS:
            yield piece
            piece = ""
        piece = f"{piece}\n{line}" if piece else line
        while len(piece) > LONGEST_CHARACTERS:
            space = piece.rfind(" ", 1, LONGEST_CHARACTERS)
            end = space if space > 0 else LONGEST_CHARACTERS
            yield piece[:end]
            piece = piece[end:].lstrip()
    if piece:
        yield piece


def _split_markdown(text: str) -> Iterator[Section]:
    """Yield the sections, each with the headings above it: `Title › Section`."""
    headings: dict[int, str] = {}
    lines: list[str] = []
    is_code = False
    for line in text.splitlines():
        if _FENCE.match(line):
            is_code = not is_code
        found = None if is_code else _HEADING.match(line)
        if found is None:
            lines.append(line)
            continue
        yield Section(_join(headings), "\n".join(lines))
        lines.clear()
        level = len(line) - len(line.lstrip("#"))
        headings = {above: words for above, words in headings.items() if above < level} | {level: found["words"]}
    yield Section(_join(headings), "\n".join(lines))


def _join(headings: dict[int, str]) -> str:
    return " › ".join(headings.values())


def _read_pdf(path: Path) -> list[Section]:
    try:
        from pypdf import PdfReader
        from pypdf.errors import FileNotDecryptedError, PyPdfError
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{path.name} needs the package pypdf: pip install 'flowkit-agents[apps]'") from error
    try:
        with _keep_log_out("pypdf"):
            pages = PdfReader(path).pages
            unknown = sorted({name for page in pages for name in _find_unknown_encodings(cast(Any, page))})
            if unknown:
                # pypdf would read other words, and tell nobody but its log.
                raise Unreadable(
                    f"its text is written in {', '.join(unknown)}, which can't be read: save it as PDF anew"
                )
            found = [Section(f"page {number}", page.extract_text()) for number, page in enumerate(pages, start=1)]
    except FileNotDecryptedError as error:
        raise Unreadable("it has a password: save it as PDF without one") from error
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # A damaged file ends in any of these.
        raise Unreadable(f"it is damaged, or no PDF ({str(error).rstrip('.') or type(error).__name__})") from error
    if not any(section.text.strip() for section in found):
        raise Unreadable("there is no text in it: a scan needs text recognition first")
    return found


@contextmanager
def _keep_log_out(name: str) -> Generator[None]:
    """Keep what a package logs, such as "EOF marker not found", from a user who is told in one sentence."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


_KNOWN = re.compile(r"/(?:Identity-[HV]|Uni\w+-UTF16-[HV]|Uni\w+-UCS2(?:-HW)?-[HV])$")


def _find_unknown_encodings(page: Any) -> Iterator[str]:
    """Find the encodings of a page's composite fonts that need a table that pypdf doesn't have (ISO 32000-1, 9.7.5.2)."""
    fonts = _resolve(_resolve(page.get("/Resources")).get("/Font"))
    for font in fonts.values():
        described = _resolve(font)
        encoding = str(described.get("/Encoding"))
        if described.get("/Subtype") == "/Type0" and "/ToUnicode" not in described and not _KNOWN.match(encoding):
            yield encoding.removeprefix("/")


def _resolve(value: Any) -> Any:
    """Return what an indirect reference points to; nothing where there is none."""
    return {} if value is None else value.get_object()
