"""The command `flowkit`: one module for each group of commands.

Exit codes: 0 done, 1 the run failed, 2 wrong usage or configuration, 130 stopped by Ctrl-C.
"""

import os
import sys

from flowkit.cli.exit_codes import FAILED, MISUSED, STOPPED
from flowkit.cli.starting import show_start
from flowkit.errors import ConfigurationError, DefinitionError, FlowkitError


def main() -> None:
    """Run the command of this process and exit; each error is a line, never a traceback."""
    _open_closed_streams()
    try:
        with show_start():
            from flowkit.cli.commands import app  # here, so that Ctrl-C while it imports is no traceback either
            from flowkit.cli.output import write_any_text

        write_any_text()
        try:
            app()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    except (ConfigurationError, DefinitionError) as error:
        _exit(error, MISUSED)
    except FlowkitError as error:
        _exit(error, FAILED)
    except BrokenPipeError:
        _drop_output()  # whoever read it has seen enough, such as `head`
        sys.exit(FAILED)
    except OSError as error:
        _drop_output()
        _exit(
            ConfigurationError(f"{error.strerror or error}{f': {error.filename!r}' if error.filename else ''}"), FAILED
        )


def _open_closed_streams() -> None:
    """Connect closed standard streams to nothing; otherwise the next file, such as the journal, would be opened as one."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 (it stays open until the process exits)


def _drop_output() -> None:
    """Send what is still buffered to nowhere; at its exit Python would try to write it once more, and fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def _exit(error: FlowkitError, code: int) -> None:
    from flowkit.cli.output import note_error

    note_error(error)
    sys.exit(code)
