"""The routes of runs: start, watch, list, decide, cancel, resume."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Annotated, Literal

from pydantic import Field
from starlette.responses import JSONResponse, Response

from flowkit.agent.forking import read_fork
from flowkit.agent.plan import ForkPoint
from flowkit.cache import open_default_cache
from flowkit.codec import JSON
from flowkit.errors import ConfigurationError, RunBusy, RunError, StoreError, ToolArgumentsError
from flowkit.executor import Approve, Deny
from flowkit.journal import Done, Fail, Journal, Resolution, Retry, RunDetails
from flowkit.runs.requests import end_stopped
from flowkit.stores.waiting import wait_in_thread
from flowkit.web import records
from flowkit.web.endpoints import Answer, Asked, Endpoint, Nothing, RequestBody, RequestRefused
from flowkit.web.following import Follower
from flowkit.web.live_runs import Live, LiveRuns
from flowkit.web.records import RunList
from flowkit.web.served import Bounds, Served, StartRequest
from flowkit.web.sse_response import ByteStream, EventStream, StreamAnswer, read_event_id

RUN_ID = r"^run-[0-9a-f]{32}$"
"""Made by the client, so that a POST that is repeated joins its run instead of starting another."""
Words = Annotated[str, Field(max_length=200)]


class Start(RequestBody):
    app: Words | None = None
    message: str | None = None
    inputs: dict[str, object] | None = None
    session: Words | None = None
    run: Annotated[str, Field(pattern=RUN_ID)] | None = None


class Decide(RequestBody):
    call: str
    approved: object = None
    reason: str | None = None
    changes: dict[str, object] | None = None


class Fork(RequestBody):
    at: str
    message: str | None = None
    results: dict[str, object] | None = None
    run: Annotated[str, Field(pattern=RUN_ID)] | None = None


class Resolve(RequestBody):
    call: str
    resolution: Literal["done", "retry", "fail"]
    value: object = None
    error: str | None = None


class RunRoutes:
    """The routes' shared state: the served app, its journal, the live runs, and each user's open streams."""

    def __init__(self, served: Served, journal: Journal, runs: LiveRuns, bounds: Bounds) -> None:
        self._served = served
        self._journal = journal
        self._runs = runs
        self._bounds = bounds
        self._list = RunList(journal, served.targets.keys())
        self._streams: dict[object, ByteStream] = {}
        self._owners: dict[object, str | None] = {}

    def list_endpoints(self) -> list[Endpoint]:
        """List the routes, each with a valid example body."""
        run, call = "run-" + "0" * 32, "turn/1/call/0"
        return [
            Endpoint("POST", "/api/runs", self.start, Start, example={"message": "Hi", "run": run}),
            Endpoint("GET", "/api/runs", self.list_runs),
            Endpoint("GET", "/api/runs/{run}", self.show),
            Endpoint("GET", "/api/runs/{run}/events", self.watch),
            Endpoint("GET", "/api/runs/{run}/call", self.show_call),
            Endpoint(
                "POST", "/api/runs/{run}/decisions", self.decide, Decide, example={"call": call, "approved": True}
            ),
            Endpoint("POST", "/api/runs/{run}/cancel", self.cancel, Nothing),
            Endpoint("POST", "/api/runs/{run}/resume", self.resume, Nothing),
            Endpoint("POST", "/api/runs/{run}/fork", self.fork, Fork, example={"at": "turn/1"}),
            Endpoint(
                "POST", "/api/runs/{run}/resolve", self.resolve, Resolve, example={"call": call, "resolution": "retry"}
            ),
        ]

    async def start(self, asked: Asked) -> Answer:
        """Start a run and stream its events. If the journal knows the run, only stream."""
        self.check_streams(asked)
        body: Start = asked.body
        wanted = self.make_wanted(asked, body.app, body.message, body.inputs, body.session, body.run)
        await self.begin(wanted)
        return self.stream_events(asked, wanted.run_id, -1, status=201)

    def make_wanted(
        self,
        asked: Asked,
        app: str | None,
        message: str | None,
        inputs: Mapping[str, object] | None,
        session: str | None,
        run_id: str | None,
    ) -> StartRequest:
        """Create the request for a run; raises `RequestRefused` with 422 for an unknown agent or recipe."""
        try:
            target = self._served.choose(app)
        except KeyError:
            raise RequestRefused(422, f"there is no {app!r}; there are {', '.join(self._served.targets)}") from None
        run_id = run_id or records.make_run_id()
        return StartRequest(target, asked.user, run_id, message, records.as_json(inputs or {}), session)

    async def begin(self, wanted: StartRequest) -> Live | None:
        """Start or join the run; None if the journal has it and it isn't driven here."""
        live = self._runs.find(wanted.user, wanted.run_id)
        if live is None and await wait_in_thread(self._journal.find, wanted.run_id, user=wanted.user) is not None:
            return None
        try:
            if live is None:
                self._served.check(wanted)
            if self._runs.queue is not None and wanted.fork is None:
                await self._runs.hand_over(wanted, self._runs.queue)
                return None
            return await self._runs.start(wanted)
        except (ToolArgumentsError, ConfigurationError) as error:
            raise RequestRefused(422, str(error)) from error
        except RunBusy as error:
            raise RequestRefused(409, str(error)) from error
        except (RunError, ValueError) as error:
            raise RequestRefused(422, str(error)) from error

    async def watch(self, asked: Asked) -> Answer:
        """Stream the events after the last one that the viewer has."""
        after = read_event_id(asked.headers.get("last-event-id") or asked.query.get("after"))
        if self._runs.find_log(asked.user, asked.run) is not None:
            return self.stream_events(asked, asked.run, after)
        found = await wait_in_thread(records.find_run, self._journal, asked.user, asked.run)
        if found is None:
            raise records.no_run()
        status = records.say_status(found)
        if status == "stopped" and self._runs.queue is not None:
            status = "running"  # a worker goes on with it
        if status not in records.OPEN and not await wait_in_thread(
            self._journal.event_rows, asked.run, after, None, 1, user=asked.user
        ):
            return Response(status_code=204, headers={"flowkit-run": asked.run, "flowkit-run-status": status})
        return self.stream_events(asked, asked.run, after, run_status=status)

    def stream_events(
        self, asked: Asked, run_id: str, after: int, *, status: int = 200, run_status: str = "running"
    ) -> Answer:
        """Create a response that streams the run's events."""
        follower = self.make_follower(asked.user, run_id, after)
        headers = {"flowkit-run-status": run_status}
        return self.stream(asked, run_id, EventStream(follower), headers, status=status)

    def make_follower(self, user: str | None, run_id: str, after: int = -1) -> Follower:
        """Create a reader of this user's run, live here or not."""
        return Follower(
            run_id,
            lambda: self._runs.find_log(user, run_id),
            journal=self._journal,
            user=user,
            after=after,
            keep_alive_s=self._bounds.keep_alive_s,
            poll_s=self._bounds.poll_s,
            is_leaving=lambda: self._runs.is_leaving,
            has_workers=self._runs.queue is not None,
        )

    def stream(
        self,
        asked: Asked,
        run_id: str,
        stream: ByteStream,
        headers: Mapping[str, str],
        *,
        status: int = 200,
        on_end: Callable[[], None] | None = None,
    ) -> Answer:
        """Create a response that counts as one of the user's streams until it ends."""
        self.check_streams(asked)
        key = object()
        self._owners[key], self._streams[key] = asked.user, stream

        def end() -> None:
            del self._owners[key], self._streams[key]
            if on_end is not None:
                on_end()

        return StreamAnswer(stream, {"flowkit-run": run_id, **headers}, end, status)

    @property
    def streams_open(self) -> int:
        """The number of streams being sent."""
        return len(self._streams)

    def check_streams(self, asked: Asked) -> None:
        """Check the user's number of streams before a run is started; raises `RequestRefused` with 429."""
        if sum(owner == asked.user for owner in self._owners.values()) >= self._bounds.streams:
            raise RequestRefused(429, f"{self._bounds.streams} streams are open", headers={"retry-after": "2"})

    async def close_streams(self) -> None:
        """End every stream after the data it already has."""
        for stream in list(self._streams.values()):
            await stream.aclose()

    async def list_runs(self, asked: Asked) -> Answer:
        """List the user's runs, newest first."""
        query = asked.query
        try:
            found = await wait_in_thread(
                self._list.read,
                asked.user,
                status=query.get("status"),
                session=query.get("session"),
                before=query.get("before"),
            )
        except ValueError:
            raise RequestRefused(422, "before: expected the `next` of a list") from None
        return JSONResponse(found)

    async def show(self, asked: Asked) -> Answer:
        """Describe one run."""
        return JSONResponse(records.details_to_json(await self._get(asked)))

    async def show_call(self, asked: Asked) -> Answer:
        """Describe one call with its whole result. Its name is a query parameter, since names contain slashes."""
        details = await self._get(asked)
        return JSONResponse(records.call_to_json(details, asked.query.get("name", "")))

    async def decide(self, asked: Asked) -> Answer:
        """Decide on a waiting call. After the last decision the run resumes automatically."""
        body: Decide = asked.body
        await self.decide_on(
            asked, asked.run, body.call, approved=body.approved is True, reason=body.reason, changes=body.changes
        )
        return JSONResponse({"run": asked.run}, 202)

    async def decide_on(
        self,
        asked: Asked,
        run_id: str,
        call: str,
        *,
        approved: bool,
        reason: str | None = None,
        changes: Mapping[str, object] | None = None,
    ) -> None:
        """Record the decision, and resume if all calls are decided; raises `RequestRefused` with 404, 409 or 422."""
        details = await self._get(asked, run_id)
        approval = details.approvals.get(call)
        if approval is None:
            raise RequestRefused(404, "nothing is asked about that call")
        if approval.decision is not None:
            raise RequestRefused(409, "it was decided already", details={"decided": records.approval_to_json(approval)})
        arguments: JSON = None
        if approved and changes:
            asked_for = approval.arguments if isinstance(approval.arguments, dict) else {}
            arguments = {**asked_for, **records.as_json(changes)}
            try:
                self._served.check_arguments(details.summary.name, approval.name, arguments)
            except ToolArgumentsError as error:
                raise RequestRefused(422, str(error)) from error
        live = self._runs.find(asked.user, run_id)
        changed = arguments if isinstance(arguments, dict) else None
        decision = Approve(changed, asked.user) if approved else Deny(reason or "", asked.user)
        if live is not None and await self._decide_live(live, call, decision):
            return
        if details.summary.status in records.OVER:
            raise RequestRefused(409, f"the run is {details.summary.status}")
        try:
            await wait_in_thread(
                self._journal.decide,
                run_id,
                call,
                approved=approved,
                by=asked.user or "",
                reason=reason or "",
                arguments=arguments,
                user=asked.user,
            )
        except RunError:
            approval = (await self._get(asked, run_id)).approvals[call]
            raise RequestRefused(
                409, "it was decided already", details={"decided": records.approval_to_json(approval)}
            ) from None
        await self._go_on_if_decided(asked, run_id)

    async def _decide_live(self, live: Live, call: str, decision: Approve | Deny) -> bool:
        """Pass the decision to the live run; False if it has just stopped to wait, so the journal must record it."""
        if call in live.decided:
            raise RequestRefused(
                409, "it was decided already", details={"decided": _say_decision(call, live.decided[call])}
            )
        if live.handle is None:
            return False
        try:
            live.handle.decide(call, decision)
        except KeyError:
            if live.task is not None:
                await asyncio.wait([live.task], timeout=self._bounds.body_s)
            if live.task is None or not live.task.done():
                raise RequestRefused(409, "it doesn't wait now") from None
            return False
        except ToolArgumentsError as error:
            raise RequestRefused(422, str(error)) from error
        live.decided[call] = decision
        return True

    async def cancel(self, asked: Asked) -> Answer:
        """Cancel the run; its stream reports how each call ended."""
        live = self._runs.find(asked.user, asked.run)
        if live is not None and live.handle is not None and not live.handle.is_done:
            live.handle.cancel()
            return JSONResponse({"run": asked.run}, 202)
        details = await self._get(asked)
        summary = details.summary
        if not await wait_in_thread(
            self._journal.request_cancel, asked.run, user=asked.user, session=details.summary.session
        ):
            raise RequestRefused(409, f"the run is {summary.status}")
        if not summary.is_held:
            # Who has begun to drive it meanwhile finds the request.
            with suppress(RunBusy):
                await end_stopped(self._journal, details, "cancelled", "it was cancelled while it stood still")
        return JSONResponse({"run": asked.run}, 202)

    async def resume(self, asked: Asked) -> Answer:
        """Resume a run that was stopped, or that has all its decisions."""
        if self._runs.find(asked.user, asked.run) is None:
            details = await self._get(asked)
            self._check_goes_on(details)
            if any(approval.decision is None for approval in details.approvals.values()):
                raise RequestRefused(409, "it waits for a person: decide first")
            try:
                await self._go_on(details)
            except RunBusy as error:
                raise RequestRefused(409, str(error)) from error
        return JSONResponse({"run": asked.run}, 202)

    async def fork(self, asked: Asked) -> Answer:
        """Fork this run before a turn, and stream the new run's events."""
        self.check_streams(asked)
        body: Fork = asked.body
        summary = (await self._get(asked)).summary
        if not self._served.is_agent(summary.name):
            raise RequestRefused(409, "only runs of this server's agents can be forked")
        run_id = body.run or records.make_run_id()
        results = records.as_json(body.results or {})
        try:
            await wait_in_thread(
                read_fork, self._journal, ForkPoint(asked.run, body.at, asked.user, summary.session, results)
            )
        except RunError as error:
            raise RequestRefused(422, str(error)) from error
        await self.begin(
            StartRequest(summary.name, asked.user, run_id, body.message, fork=asked.run, at=body.at, results=results)
        )
        return self.stream_events(asked, run_id, -1, status=201)

    async def resolve(self, asked: Asked) -> Answer:
        """Resolve a write in doubt. If no other write is in doubt, the run resumes automatically."""
        body: Resolve = asked.body
        resolution = _read_resolution(body)
        await self._get(asked)
        try:
            settled = await wait_in_thread(
                self._journal.resolve, asked.run, body.call, resolution, by=asked.user or "", user=asked.user
            )
        except RunError as error:  # it is driven, or not in doubt
            raise RequestRefused(409, str(error)) from error
        if settled.resources:
            await open_default_cache().bump(settled.resources)
        await self._go_on_if_decided(asked, asked.run)
        return JSONResponse({"run": asked.run}, 202)

    async def _get(self, asked: Asked, run_id: str | None = None) -> RunDetails:
        try:
            return await wait_in_thread(records.get_run, self._journal, asked.user, run_id or asked.run)
        except StoreError as error:
            raise RequestRefused(500, str(error)) from error

    async def _go_on_if_decided(self, asked: Asked, run_id: str) -> None:
        details = await self._get(asked, run_id)
        is_open = any(approval.decision is None for approval in details.approvals.values())
        is_in_doubt = any(node.state == "in_doubt" for node in details.nodes.values())
        summary = details.summary
        if is_open or is_in_doubt or summary.is_held or summary.status in records.OVER:
            return
        if summary.name not in self._served.targets:
            # Another server's, or a worker's: whoever has its code goes on with it.
            await wait_in_thread(self._journal.requeue, summary.run_id, user=summary.user, session=summary.session)
            return
        with suppress(RunBusy):  # somebody has begun to drive it meanwhile
            await self._go_on(details)

    async def _go_on(self, details: RunDetails) -> None:
        if details.summary.name not in self._served.targets:
            raise RequestRefused(409, f"this server has no {details.summary.name!r}")
        try:
            await self._runs.go_on(details)
        except RunBusy:
            raise
        except (ToolArgumentsError, ConfigurationError, RunError) as error:
            raise RequestRefused(409, str(error)) from error

    def _check_goes_on(self, details: RunDetails) -> None:
        status = records.say_status(details.summary)
        if status in records.OVER:
            raise RequestRefused(409, f"the run is {status}")
        if details.summary.is_held:
            raise RequestRefused(409, "another process drives it")


def _say_decision(call: str, decision: Approve | Deny) -> dict[str, JSON]:
    reason = decision.reason if isinstance(decision, Deny) else ""
    return {"call": call, "approved": isinstance(decision, Approve), "by": decision.by, "reason": reason}


def _read_resolution(body: Resolve) -> Resolution:
    match body.resolution:
        case "done":
            return Done(records.as_json({"value": body.value})["value"])
        case "retry":
            return Retry()
        case "fail":
            return Fail(body.error or "a person said that it failed")
