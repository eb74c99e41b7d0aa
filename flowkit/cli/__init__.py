"""The command `flowkit`: one module for each group of commands.

Exit codes: 0 done, 1 the run failed, 2 wrong usage or configuration, 130 stopped by Ctrl-C.
"""

import sys

from flowkit.cli.exit_codes import FAILED, MISUSED, STOPPED
from flowkit.cli.starting import show_start
from flowkit.errors import ConfigurationError, DefinitionError, FlowkitError


def main() -> None:
    """Run the command of this process and exit; each error is a line, never a traceback."""
    try:
        with show_start():
            from flowkit.cli.commands import app  # here, so that Ctrl-C while it imports is no traceback either
            from flowkit.cli.output import write_any_text

        write_any_text()
        app()
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    except (ConfigurationError, DefinitionError) as error:
        _exit(error, MISUSED)
    except FlowkitError as error:
        _exit(error, FAILED)


def _exit(error: FlowkitError, code: int) -> None:
    from flowkit.cli.output import note_error

    note_error(error)
    sys.exit(code)
