"""Programs of the system, started as servers by a user who isn't root, and gone with the process that started them."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534
"""Who runs a server when the tests are run by root: PostgreSQL refuses root."""
END_S = 60.0
"""How long a server that was told to end may take to do so on a busy machine."""


def require_program(name: str, package: str, *folders: Path) -> str:
    """The path of a program; skips the test where it isn't installed."""
    for folder in folders:
        if (folder / name).exists():
            return str(folder / name)
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} isn't installed (Debian: apt-get install {package})")
    return found


def find_free_port() -> int:
    """A port of the loopback interface that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def drop_rights(*, end: str = "TERM") -> tuple[str, ...]:
    """What stands before a command: no rights of root, and this signal when the process that started it dies."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            pytest.skip(
                "setpriv isn't installed (Debian: apt-get install util-linux), and root can't start this server"
            )
        return ()
    rights = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups") if os.geteuid() == 0 else ()
    return (setpriv, "--pdeathsig", end, *rights)


@contextmanager
def server_folder(name: str) -> Generator[Path]:
    """A folder that the server's user owns; pytest's own are closed to everybody else."""
    with tempfile.TemporaryDirectory(prefix=f"flowkit-{name}-", ignore_cleanup_errors=True) as folder:
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        yield Path(folder)


def run_tool(command: Sequence[str]) -> None:
    """Run a program of a server to its end, by the server's user; its output is told when it fails."""
    done = subprocess.run([*drop_rights(), *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"


class ServerProcess:
    """A server in the foreground, with its log in a file."""

    def __init__(self, command: Sequence[str], log: Path, *, end: str = "TERM") -> None:
        self._log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [*drop_rights(end=end), *command], stdout=file, stderr=file, stdin=subprocess.DEVNULL, cwd=log.parent
            )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def check(self) -> None:
        """Fail, with the end of its log, when it has ended."""
        if self._process.poll() is not None:
            raise AssertionError(f"the server ended ({self._process.returncode}): {self.read_log()[-2000:]}")

    def read_log(self) -> str:
        """What it has written."""
        return self._log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send it this signal and wait until it has ended; it is killed where it doesn't."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
