"""flowkit as an MCP server: hosts call agents, recipes and tools, and each call is a run.

A run that waits for a person ends as `waiting`; the host's user is asked by elicitation, for all calls together, and
the run resumes with the decisions. If a host doesn't support elicitation, calls that need approval don't run. If a
host cancels or disconnects, its run stops.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

from flowkit import events
from flowkit.codec import JSON, dumps
from flowkit.errors import RunError, ToolArgumentsError
from flowkit.executor import Approve, Decision, Deny
from flowkit.journal import Journal
from flowkit.mcp.offers import Offer
from flowkit.mcp_client.results import write_block
from flowkit.media import show_media
from flowkit.recipes.single import make_single
from flowkit.runs.results import Pending, RunResult
from flowkit.runs.run import Run, make_run_id
from flowkit.stores.waiting import wait_in_thread
from flowkit.web.served import Served, StartRequest

logger = logging.getLogger("flowkit.mcp.server")

INVALID_PARAMS = -32602
STATE_S = 15 * 60.0
"""How long a question to a person may stay open before its answer is refused."""
PROGRESS_EVERY_S = 0.1
RUNS_LISTED = 20
_URI = "flowkit://runs/"
_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "approved": {"type": "boolean", "title": "Approve", "description": "Whether the call may run."},
        "reason": {"type": "string", "title": "Reason", "description": "Told to the model when you decline."},
    },
    "required": ["approved"],
}

GetUser = Callable[[Any], str | None]
"""Gives the user of a request's context; nobody sees another's runs."""


class McpServer:
    """Offer an app to MCP hosts; `make` returns the server of the `mcp` package."""

    def __init__(
        self,
        served: Served,
        offers: Mapping[str, Offer],
        journal: Journal,
        get_user: GetUser,
        *,
        name: str = "flowkit",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._served = served
        self._offers = offers
        self._journal = journal
        self._get_user = get_user
        self._name = name
        self._clock = clock
        self._asked: dict[str, tuple[float, StartRequest]] = {}
        """The runs whose questions are open, by their id, until when, and what was asked for."""

    def make(self) -> Any:
        """Make a server of the `mcp` package; one serves any number of hosts."""
        from mcp.server import Server
        from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity

        from flowkit import __version__

        server: Any = Server(
            self._name,
            version=__version__,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_read_resource=self._read_resource,
        )
        # The state names a run whose calls wait: without this anybody could decide on it.
        security = RequestStateSecurity(keys=[secrets.token_bytes(32)], ttl=STATE_S)
        server.middleware.append(RequestStateBoundary(security, default_audience=self._name))
        return server

    async def _list_tools(self, context: Any, params: Any) -> Any:
        from mcp_types import ListToolsResult

        return ListToolsResult(tools=[offer.describe() for offer in self._offers.values()])

    async def _call_tool(self, context: Any, params: Any) -> Any:
        from mcp.shared.exceptions import MCPError

        offer = self._offers.get(params.name)
        if offer is None:
            raise MCPError(INVALID_PARAMS, f"there is no tool {params.name!r}")
        user = self._get_user(context)
        try:
            if params.request_state is not None:
                return await self._go_on(context, offer, params, user)
            wanted = offer.want(params.arguments or {}, user, make_run_id())
            self._check(offer, wanted)
            return await self._run(context, offer, wanted, {})
        except (ToolArgumentsError, RunError) as error:
            return _say_error(str(error))
        except MCPError:
            raise
        except Exception as error:  # of the app's code, whose text is for the log and not for the host
            reference = secrets.token_hex(4)
            logger.exception("a call of %s failed (ref %s)", offer.name, reference)
            return _say_error(f"{offer.name} failed (ref {reference}): {type(error).__name__}")

    def _check(self, offer: Offer, wanted: StartRequest) -> None:
        if offer.tool is not None:
            offer.tool.check(wanted.inputs)
        else:
            self._served.check(wanted)

    async def _go_on(self, context: Any, offer: Offer, params: Any, user: str | None) -> Any:
        """Use the host's answers to a request for input, once."""
        for run_id in [run_id for run_id, (until, _) in self._asked.items() if until < self._clock()]:
            del self._asked[run_id]
        _, wanted = self._asked.get(params.request_state, (0.0, None))
        if wanted is None or wanted.target != offer.name or wanted.user != user:
            # Who may not answer doesn't use the question up.
            return _say_error("this question was answered already, or is too old: call again")
        del self._asked[params.request_state]
        answers = cast(Mapping[str, Any], params.input_responses or {})
        decisions: dict[str, Decision] = {call: _read_decision(answer) for call, answer in answers.items()}
        return await self._run(context, offer, wanted, decisions)

    async def _run(self, context: Any, offer: Offer, wanted: StartRequest, decisions: Mapping[str, Decision]) -> Any:
        """Run to completion, asking the host's user each time the run waits."""
        while True:
            result = await self._run_once(context, offer, wanted, decisions)
            if result.status != "waiting" or not result.pending:
                return _write_result(offer, result)
            capabilities = context.session.client_capabilities
            if capabilities is None or capabilities.elicitation is None:
                names = ", ".join(pending.name for pending in result.pending)
                return _say_error(
                    f"{names} needs a person's approval, and this host can't ask for it; nothing of it ran"
                )
            forms = {pending.id: _make_form(pending) for pending in result.pending}
            if not context.session.can_send_request:
                from mcp_types import ElicitRequest, InputRequiredResult

                self._asked[wanted.run_id] = (self._clock() + STATE_S, wanted)
                asked = {call: ElicitRequest(params=form) for call, form in forms.items()}
                return InputRequiredResult(input_requests=cast(Any, asked), request_state=wanted.run_id)
            answers = {
                call: await context.session.elicit_form(form.message, form.requested_schema, context.request_id)
                for call, form in forms.items()
            }
            decisions = {call: _read_decision(answer) for call, answer in answers.items()}

    async def _run_once(
        self, context: Any, offer: Offer, wanted: StartRequest, decisions: Mapping[str, Decision]
    ) -> RunResult[Any]:
        async with (
            self._served.open(wanted.user) as data,
            self._hold(self._start(offer, wanted, data, decisions)) as run,
            _stop_when_gone(run, context.request),
        ):
            await _tell_progress(run, context.session)
            return await run.wait()

    def _start(self, offer: Offer, wanted: StartRequest, data: object, decisions: Mapping[str, Decision]) -> Run[Any]:
        if offer.tool is None:
            run = self._served.start(wanted, data, self._journal)
        else:
            run = make_single(offer.tool, wanted.inputs).start(
                {}, data=data, user=wanted.user, run_id=wanted.run_id, journal=self._journal
            )
        run.add_decisions(decisions)
        return run

    @asynccontextmanager
    async def _hold(self, run: Run[Any]) -> AsyncGenerator[Run[Any]]:
        """Stop the run when its call is cancelled or its host disconnects, and wait until it has stopped."""
        from anyio import CancelScope

        try:
            yield run
        finally:
            run.cancel()
            # The package cancels by anyio, which cancels again at each further wait: the end is shielded from it.
            with CancelScope(shield=True):
                await run.wait()

    async def _list_resources(self, context: Any, params: Any) -> Any:
        from mcp_types import ListResourcesResult, Resource

        runs = await wait_in_thread(self._journal.runs, user=self._get_user(context), limit=RUNS_LISTED)
        return ListResourcesResult(
            resources=[
                Resource(uri=f"{_URI}{run.run_id}", name=f"{run.name}, {run.status}", mime_type="application/json")
                for run in runs
            ]
        )

    async def _read_resource(self, context: Any, params: Any) -> Any:
        """Show a run of this user; others' don't exist."""
        from mcp.shared.exceptions import MCPError
        from mcp_types import ReadResourceResult, TextResourceContents

        uri = str(params.uri)
        found = None
        if uri.startswith(_URI):
            run_id, user = uri.removeprefix(_URI), self._get_user(context)
            found = await wait_in_thread(self._journal.show, run_id, user=user)
        if found is None:
            raise MCPError(INVALID_PARAMS, f"there is no resource {uri!r}")
        summary = found.summary
        shown: dict[str, JSON] = {
            "run_id": summary.run_id,
            "name": summary.name,
            "status": summary.status,
            "output": found.output,
            "error": summary.error,
        }
        text = dumps(shown).decode()
        return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type="application/json", text=text)])


@asynccontextmanager
async def _stop_when_gone(run: Run[Any], request: Any) -> AsyncGenerator[None]:
    """Stop a run when its HTTP request is disconnected: in the handshake era the package lets such a call continue."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        run.cancel()

    if request is None:
        yield
        return
    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def _tell_progress(run: Run[Any], session: Any) -> None:
    """Report the number of finished calls, at most ten times a second."""
    loop = asyncio.get_running_loop()
    ended = 0
    told_at = -PROGRESS_EVERY_S
    async for event in run:
        match event:
            case events.CallFinished(call=call) | events.CallFailed(call=call):
                ended += 1
                note = f"{call} finished" if isinstance(event, events.CallFinished) else f"{call} failed"
            case events.CallProgress(note=note):
                pass
            case _:
                continue
        if loop.time() - told_at >= PROGRESS_EVERY_S:
            told_at = loop.time()
            with suppress(ConnectionError):
                await session.report_progress(ended, None, note or None)


def _make_form(pending: Pending) -> Any:
    from mcp_types import ElicitRequestFormParams

    shown = dumps(cast(JSON, dict(pending.arguments))).decode()
    return ElicitRequestFormParams(message=f"May {pending.name} run with {shown}?", requested_schema=_FORM)


def _read_decision(answer: Any) -> Decision:
    """Read the decision: only an accepted form that says yes approves."""
    content = cast(Mapping[str, object], answer.content or {})
    if answer.action == "accept" and content.get("approved") is True:
        return Approve()
    reason = content.get("reason")
    return Deny(reason if isinstance(reason, str) and reason else "a person declined")


def _write_result(offer: Offer, result: RunResult[Any]) -> Any:
    from mcp_types import CallToolResult, TextContent

    if result.status != "done":
        reason = "" if result.error is None else f": {result.error}"
        return _say_error(f"{offer.name} ended as {result.status}{reason}", result.run_id)
    output, media = show_media(_to_json(offer, result))
    text = output if isinstance(output, str) else dumps(output).decode()
    structured = offer.wrap(output, result.status, result.run_id)
    return CallToolResult(
        content=[TextContent(text=text), *map(write_block, media)],
        structured_content=structured if offer.result_schema is not None else None,
        _meta={"flowkit/run": result.run_id},
    )


def _to_json(offer: Offer, result: RunResult[Any]) -> JSON:
    """Convert the output to JSON."""
    from pydantic_core import to_jsonable_python

    return cast(JSON, to_jsonable_python(result.output, by_alias=True))


def _say_error(text: str, run_id: str | None = None) -> Any:
    from mcp_types import CallToolResult, TextContent

    meta = None if run_id is None else {"flowkit/run": run_id}
    return CallToolResult(content=[TextContent(text=text)], is_error=True, _meta=meta)
