"""Functions in processes of their own that start in milliseconds and can be killed.

A helper process imports everything once, without threads, and forks a child for each function. The child says lines
with `say`, which the test reads with `Child.hear`; so nobody polls and nobody sleeps.

    with Forks(["flowkit.cache"]) as forks:
        child = forks.start("test_cache_processes:write_for_ever", folder)
        child.hear()
        child.kill()
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self, cast

_said: IO[str] | None = None


def say(line: str) -> None:
    """In a child: tell the test this."""
    assert _said is not None, "only in a child of Forks"
    _said.write(f"{line}\n")
    _said.flush()


class Child:
    """A process that runs one function."""

    def __init__(self, forks: "Forks", pid: int, ear: Path) -> None:
        self._forks = forks
        self._ear = open(ear, encoding="utf-8")  # noqa: SIM115  # closed with the child
        self.pid = pid

    def hear(self) -> str:
        """The next line that it says, without its end; empty when it has ended."""
        return self._ear.readline().rstrip("\n")

    def kill(self) -> None:
        """`kill -9`, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def has_stopped(self) -> bool:
        """Wait until it has stopped itself with SIGSTOP; False when it ended instead, and then it needs no `wait`."""
        has_stopped = bool(self._forks.ask({"wait_stopped": self.pid}))
        if not has_stopped:
            self._ear.close()
        return has_stopped

    def go_on(self) -> None:
        """Let it go on after SIGSTOP."""
        os.kill(self.pid, signal.SIGCONT)

    def wait(self) -> int:
        """Wait for its end; 0 when the function returned, 1 when it raised, negative for a signal."""
        code = self._forks.ask({"wait": self.pid})
        self._ear.close()
        return cast(int, code)


class Forks:
    """The helper process."""

    def __init__(self, imports: Sequence[str] = ()) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._count = 0
        self._helper = subprocess.Popen(
            [sys.executable, __file__, *imports], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def start(self, function: str, *arguments: object, **options: object) -> Child:
        """Run `module:name` of the tests' folder with these JSON arguments."""
        self._count += 1
        ear = Path(self._folder.name) / str(self._count)
        os.mkfifo(ear)
        pid = self.ask({"start": function, "arguments": arguments, "options": options, "ear": str(ear)})
        return Child(self, cast(int, pid), ear)

    def ask(self, command: dict[str, object]) -> object:
        assert self._helper.stdin is not None
        assert self._helper.stdout is not None
        self._helper.stdin.write(json.dumps(command, default=str) + "\n")
        self._helper.stdin.flush()
        return json.loads(self._helper.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._helper.stdin is not None
        assert self._helper.stdout is not None
        self._helper.stdin.close()
        self._helper.stdout.close()
        self._helper.wait()
        self._folder.cleanup()


def _serve(imports: Sequence[str]) -> None:
    children: set[int] = set()
    for module in imports:
        importlib.import_module(module)
    for line in sys.stdin:
        command = json.loads(line)
        if "start" in command:
            answer = os.fork()
            if answer == 0:
                _run(command["start"], command["arguments"], command["options"], command["ear"])
            children.add(answer)
        elif "wait_stopped" in command:
            _, status = os.waitpid(command["wait_stopped"], os.WUNTRACED)
            answer = os.WIFSTOPPED(status)
            if not answer:
                children.discard(command["wait_stopped"])
        else:
            _, status = os.waitpid(command["wait"], 0)
            children.discard(command["wait"])
            answer = os.waitstatus_to_exitcode(status)
        print(json.dumps(answer), flush=True)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _run(function: str, arguments: Sequence[object], options: Mapping[str, object], ear: str) -> None:
    code = 1
    try:
        os.close(0)
        os.dup2(2, 1)
        # This file runs as the main program here, while the functions import it by its name.
        with open(ear, "w", encoding="utf-8") as said:
            vars(importlib.import_module("forking"))["_said"] = said
            module, _, name = function.partition(":")
            getattr(importlib.import_module(module), name)(*arguments, **options)
        code = 0
    except BaseException:  # noqa: BLE001  # the child must end here, whatever happened
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1:])
