"""All errors of flowkit, as one tree.

FlowkitError
├── DefinitionError           the programmer, at decoration or load: a tool, recipe or app that can't work
│   ├── GraphError            a graph with an unknown or forward reference, or a name twice
│   │   ├── CycleError        calls that wait for one another; `.members` names them
│   │   └── NoSuchNode        no node of this id, or none that waits for a decision; `.node_id`
│   └── RecipeFileError       a recipe file; `.path`, `.line`, `.column`
├── ConfigurationError        no key, no base URL, an app that doesn't import, a folder that can't be written
├── ToolError                 raised by a tool: its text is sent to the model verbatim
│   ├── ToolArgumentsError    arguments that don't fit; `.problems`, a short line for each
│   ├── ToolResultError       a result that can't be JSON, or is too large
│   └── ResolutionError       a reference whose path isn't in the result it points to
├── ModelError                the model's server refused or failed; `.status`, `.retryable`, `.retry_after_s`
│   └── StreamError           a body that can't be read
│       └── StreamTruncated   a body that ended without its end mark
├── GuardRefused              a guard refused a request, an answer or a call, which ended the run; `.reason`
├── GuardFailed               a guard raised an error, so the guarded action didn't happen; `.guard`
├── RunError                  a run that can't start or be resumed
│   ├── RunBusy               another process drives it
│   ├── CodeChanged           the code of unfinished steps has changed since the run started
│   ├── InDoubt               a write may have happened; a person or its probe decides
│   └── RunNotDone            the output of a run that isn't done; `.status`
└── StoreError                the cache or the journal can't be opened or written
"""

from collections.abc import Mapping, Sequence


class FlowkitError(Exception):
    """The root: every error that flowkit raises on purpose.

    `.result` is the partial result of a run that this error ended: an `AgentResult` or `RecipeResult`, else None.
    """

    result: object = None


class DefinitionError(FlowkitError):
    """A tool, recipe or app that can't work, found at decoration or load."""

    def __init__(self, message: str, *, tool: str | None = None, parameter: str | None = None) -> None:
        super().__init__(message)
        self.tool = tool
        self.parameter = parameter

    @classmethod
    def about(cls, tool: str, problem: str, parameter: str | None = None) -> "DefinitionError":
        """Make the error about one tool, or one of its parameters."""
        return DefinitionError(f"tool {tool!r}: {problem}", tool=tool, parameter=parameter)


class GraphError(DefinitionError):
    """A graph that can't be run."""


class CycleError(GraphError):
    """Calls that wait for one another, in the order of the circle."""

    def __init__(self, members: Sequence[str]) -> None:
        self.members = tuple(members)
        super().__init__(f"a circle: {' -> '.join((*self.members, self.members[0]))}")


class NoSuchNode(GraphError, KeyError):
    """No node of this id, or none in the state that was asked for; also a `KeyError`, as of a dict."""

    def __init__(self, node_id: str, message: str) -> None:
        self.node_id = node_id
        super().__init__(message)

    def __str__(self) -> str:
        return str(self.args[0])  # a `KeyError` would show it in quotes


class RecipeFileError(DefinitionError):
    """A recipe file that can't be loaded; lines and columns count from 1.

    `errors` are all that were found, from the top of the file; the message has a line for each, and the place is that
    of the first.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str,
        line: int | None = None,
        column: int | None = None,
        errors: "tuple[RecipeFileError, ...]" = (),
    ) -> None:
        where = path if line is None else f"{path}:{line}:{column or 1}"
        super().__init__("\n".join(map(str, errors)) if errors else f"{where}: {message}")
        self.path = path
        self.line = line
        self.column = column
        self.errors = errors or (self,)


class ConfigurationError(FlowkitError):
    """Something outside the code is missing or wrong: a key, an address, a file, a permission."""


class ToolError(FlowkitError):
    """Raise it in a tool with a message that the model reads word for word.

    >>> raise ToolError("sold out; offer P002")
    Traceback (most recent call last):
    ...
    flowkit.errors.ToolError: sold out; offer P002

    With `retryable=True` the call is tried again first, as its effect and `retries` allow.
    """

    retryable: bool = False

    def __init__(self, *args: object, retryable: bool = False) -> None:
        super().__init__(*args)
        self.retryable = retryable


class ToolArgumentsError(ToolError):
    """Arguments that a tool doesn't take; `.problems` holds one short line for each."""

    def __init__(self, tool: str, problems: Sequence[str]) -> None:
        self.tool = tool
        self.problems = tuple(problems)
        super().__init__(f"tool {tool!r}: {'; '.join(self.problems)}")


class ToolResultError(ToolError):
    """A tool's result that can't be used: not JSON, or too large."""


class ResolutionError(ToolError):
    """A reference that can't be resolved: no such call, or no such path in its result."""


class ModelError(FlowkitError):
    """The model's server refused the request, failed, or closed the connection early.

    - `.status` is the HTTP status, if there was one.
    - `.retryable` is True if a retry may help.
    - `.retry_after_s` is the wait that the server requested.
    - `.body` is the server's answer (parsed JSON or text).
    - `.max_retries` is the number of retries that the model's settings allow; 0 leaves it to the run's attempts.
    - `.request_id` identifies the request to the server's support.
    - `.limits` are the headers about rate limits.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retryable: bool = False,
        retry_after_s: float | None = None,
        body: object = None,
        max_retries: int = 0,
        request_id: str | None = None,
        limits: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.limits = dict(limits or {})
        self.status = status
        self.max_retries = max_retries
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.body = body


class StreamError(ModelError):
    """A body that can't be read: invalid UTF-8, bad JSON, an error in the middle, not an event stream."""


class StreamTruncated(StreamError):
    """A body that ended without a finish reason and without its end mark."""


class GuardRefused(FlowkitError):
    """A guard ended the run; `.reason` is for the user, `.guard` its name, `.place` the kind of the refused object."""

    def __init__(self, guard: str, reason: str, place: str) -> None:
        super().__init__(f"guard {guard!r} refused the {place}: {reason}")
        self.guard = guard
        self.reason = reason
        self.place = place


class GuardFailed(FlowkitError):
    """A guard raised, which counts as no pass; `.guard` is its name."""

    def __init__(self, guard: str, problem: str) -> None:
        super().__init__(f"guard {guard!r} failed: {problem}")
        self.guard = guard


class RunError(FlowkitError):
    """A run that can't start or resume."""


class RunBusy(RunError):
    """Another process drives this run."""


class CodeChanged(RunError):
    """The code of unfinished steps has changed since the run started."""


class InDoubt(RunError):
    """A write may or may not have happened; its probe or a person decides.

    Raise it in a tool if the call may have taken effect although its answer was lost: it is never retried.
    """


class RunNotDone(RunError):
    """The output of a run that has none was read; `.status` is the state of the run."""

    def __init__(self, run_id: str, status: str, why: str = "") -> None:
        super().__init__(
            f"run {run_id!r} has no output, its status is {status!r}{f': {why}' if why else ''}"
            " (look at result.status first, or take result.output_or_none)"
        )
        self.run_id = run_id
        self.status = status


class StoreError(FlowkitError):
    """The cache or the journal can't be opened, read or written."""
