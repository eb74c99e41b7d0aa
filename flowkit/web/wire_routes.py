"""The routes of other front ends: `/api/chat` for the AI SDK's `useChat`, `/api/agui` for AG-UI.

A browser's history can't be trusted: only the new message is read from a request, and only the id and decision of
an approval. Earlier messages, pending approvals and their arguments come from the journal.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Annotated, cast

from pydantic import Field
from starlette.responses import Response

from flowkit.codec import JSON
from flowkit.journal import Journal
from flowkit.stores.waiting import wait_in_thread
from flowkit.web import records
from flowkit.web.endpoints import Answer, Asked, Endpoint, Loose, RequestRefused
from flowkit.web.live_runs import LiveRuns
from flowkit.web.run_routes import RunRoutes, Words
from flowkit.web.served import Bounds
from flowkit.web.wires.ai_sdk import Version
from flowkit.web.wires.encoding import HEADERS, make_stream

Message = dict[str, object]
VERSIONS: Mapping[str, Version] = {"5": 5, "6": 6, "7": 7}


class Chat(Loose):
    """The request body of `DefaultChatTransport`."""

    id: Words
    messages: Annotated[list[Message], Field(min_length=1)]
    trigger: str | None = None


class Resume(Loose):
    interruptId: str
    status: str
    payload: object = None


class AGUI(Loose):
    """A request body of type `RunAgentInput`."""

    threadId: Words
    runId: Words
    messages: list[Message] = Field(default_factory=list[Message])
    resume: list[Resume] | None = None


class WireDecision:
    """A decision about one call, as sent by a client: `id` is `run:call`."""

    def __init__(self, id: object, *, approved: bool, reason: object) -> None:
        run, colon, call = (id if isinstance(id, str) else "").partition(":")
        if not (run and colon and call):
            raise RequestRefused(422, "an approval's id is expected, as it was asked for")
        self.run, self.call, self.approved = run, call, approved
        self.reason = reason if isinstance(reason, str) else None


class WireRoutes:
    """Both protocols over the same runs."""

    def __init__(self, routes: RunRoutes, runs: LiveRuns, journal: Journal, bounds: Bounds) -> None:
        self._routes = routes
        self._runs = runs
        self._journal = journal
        self._bounds = bounds

    def list_endpoints(self) -> list[Endpoint]:
        """List the routes, each with a valid example body."""
        said: JSON = [{"id": "m1", "role": "user", "content": "Hi", "parts": [{"type": "text", "text": "Hi"}]}]
        return [
            Endpoint("POST", "/api/chat", self.chat, Chat, example={"id": "chat-1", "messages": said}),
            Endpoint("GET", "/api/chat/{chat}/stream", self.go_on_reading),
            Endpoint("POST", "/api/agui", self.agui, AGUI, example={"threadId": "t", "runId": "r", "messages": said}),
        ]

    async def chat(self, asked: Asked) -> Answer:
        """Answer a message, or resume after approvals; the answer continues the message that asked."""
        self._routes.check_streams(asked)
        body: Chat = asked.body
        version = _read_version(asked)
        last = body.messages[-1]
        verdicts = list(_find_verdicts(last))
        if last.get("role") == "user":
            is_new = body.trigger != "regenerate-message"
            run_id = _make_run_id(asked, body.id, last.get("id")) if is_new else records.make_run_id()
            wanted = self._routes.make_wanted(asked, asked.query.get("app"), _read_text(last), None, body.id, run_id)
            await self._routes.begin(wanted)
            after = -1
        elif verdicts:
            run_id = verdicts[0].run
            after = await self._decide(asked, run_id, verdicts)
        else:
            raise RequestRefused(422, "the last message must be a user's, or an assistant's with answered approvals")
        return self._stream_chat(asked, run_id, version, after)

    async def go_on_reading(self, asked: Asked) -> Answer:
        """Stream the chat's live run from its beginning; 204 if none is live."""
        version = _read_version(asked)
        found = await wait_in_thread(self._journal.runs, session=asked.path["chat"], user=asked.user, limit=20)
        live = next((run for run in found if run.is_held or records.say_status(run) in records.OPEN), None)
        if live is None:
            return Response(status_code=204)
        return self._stream_chat(asked, live.run_id, version, -1)

    def _stream_chat(self, asked: Asked, run_id: str, version: Version, after: int) -> Answer:
        follower = self._routes.make_follower(asked.user, run_id)
        stream = make_stream(follower, "ai-sdk", after=after, version=version)
        live = self._runs.find(asked.user, run_id)
        # `stop()` of this client only closes; a page that can come back says keep=1, and stops by the run's `cancel`.
        unwatched_s = None if asked.query.get("keep") == "1" else self._bounds.unwatched_s
        leave = None if live is None else self._runs.watch(live, unwatched_s)
        try:
            return self._routes.stream(asked, run_id, stream, HEADERS["ai-sdk"], on_end=leave)
        except RequestRefused:
            if leave is not None:
                leave()
            raise

    async def agui(self, asked: Asked) -> Answer:
        """Answer the thread's new message, or resume after interrupts."""
        self._routes.check_streams(asked)
        body: AGUI = asked.body
        if body.resume:
            verdicts = [_read_resume(entry) for entry in body.resume]
            run_id = verdicts[0].run
            after = await self._decide(asked, run_id, verdicts)
        else:
            said = next((message for message in reversed(body.messages) if message.get("role") == "user"), None)
            if said is None:
                raise RequestRefused(422, "messages: a user's message is expected")
            run_id = _make_run_id(asked, body.threadId, body.runId)
            app = asked.query.get("app")
            wanted = self._routes.make_wanted(asked, app, _read_text(said), None, body.threadId, run_id)
            await self._routes.begin(wanted)
            after = -1
        stream = make_stream(
            self._routes.make_follower(asked.user, run_id),
            "ag-ui",
            after=after,
            thread=body.threadId,
            run_id=body.runId,
            messages=cast(Sequence[Mapping[str, JSON]], body.messages),
        )
        return self._routes.stream(asked, run_id, stream, HEADERS["ag-ui"])

    async def _decide(self, asked: Asked, run_id: str, verdicts: Sequence[WireDecision]) -> int:
        """Record the decisions; return the number of the last event before they take effect."""
        if any(verdict.run != run_id for verdict in verdicts):
            raise RequestRefused(422, "approvals of one run at a time")
        found = await wait_in_thread(records.get_run, self._journal, asked.user, run_id)
        log = self._runs.find_log(asked.user, run_id)
        if log is not None and log.events:
            last = log.events[-1].seq
        else:
            session = found.summary.session
            last = await wait_in_thread(self._journal.last_seq, run_id, user=asked.user, session=session)
        for verdict in verdicts:
            try:
                await self._routes.decide_on(
                    asked, run_id, verdict.call, approved=verdict.approved, reason=verdict.reason
                )
            except RequestRefused as refused:
                if refused.status != 409:  # decided already: the client is sent what came of it
                    raise
        return last


def _read_version(asked: Asked) -> Version:
    version = VERSIONS.get(asked.query.get("v", "7"))
    if version is None:
        raise RequestRefused(422, "v: the version of the package ai is expected, 5, 6 or 7")
    return version


def _make_run_id(asked: Asked, *parts: object) -> str:
    """Derive the run id from the message, so that a repeated POST joins its run."""
    named = "\0".join(str(part) for part in (asked.user, *parts))
    return f"run-{sha256(named.encode()).hexdigest()[:32]}"


def _find_verdicts(message: Message) -> list[WireDecision]:
    found: list[WireDecision] = []
    for part in _list_objects(message.get("parts")):
        if part.get("state") == "approval-responded":
            said = _as_object(part.get("approval"))
            found.append(WireDecision(said.get("id"), approved=said.get("approved") is True, reason=said.get("reason")))
    return found


def _read_resume(entry: Resume) -> WireDecision:
    said = _as_object(entry.payload)
    approved = entry.status == "resolved" and said.get("approved") is True
    return WireDecision(entry.interruptId, approved=approved, reason=said.get("reason"))


def _list_objects(value: object) -> list[Message]:
    return [_as_object(item) for item in cast("list[object]", value)] if isinstance(value, list) else []


def _as_object(value: object) -> Message:
    return cast(Message, value) if isinstance(value, dict) else {}


def _read_text(message: Message) -> str:
    """Read the text of a user's message, of either protocol."""
    content = message.get("parts") or message.get("content")
    if isinstance(content, str):
        return content
    texts = (part.get("text") for part in _list_objects(content) if part.get("type") == "text")
    return "\n".join(text for text in texts if isinstance(text, str))
