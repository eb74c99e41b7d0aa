"""The routes of runs over a real server: start, watch, list, decide, cancel, go on; two users, and two processes."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from flowkit import Agent, ConfigurationError, Journal, ScriptedModel, recipe, serve_app, step, tool
from flowkit.codec import JSON
from flowkit.messages import Usage
from flowkit.testing import call, thinking
from flowkit.web.served import Bounds
from flowkit.web.serving import WebApp
from tests.test_following import fold
from tests.web_server import RUN, Answer, Client, serving

TOKENS = {"ann-token": "ann", "bob-token": "bob"}
OTHER = "run-" + "f" * 32


class Gate:
    """What a test opens to let a tool go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()


@tool(effect="read")
async def look_up(word: str) -> str:
    """Look a word up."""
    return word.upper()


@tool(approval=True)
async def pay(won: int, to: str = "shop") -> str:
    """Pay."""
    return f"paid {won} to {to}"


@tool(effect="read")
async def wait_at_gate() -> str:
    """Wait."""
    gate = GATES[-1]
    gate.reached.set()
    await gate.opened.wait()
    return "through"


@tool(effect="read")
async def read_book() -> list[str]:
    """A long result."""
    return ["배송 " * 200] * 400


@tool(approval=True, secret=("token",))
async def charge(won: int, token: str) -> str:
    """Charge."""
    return f"charged {won} with a token of {len(token)}"


GATES: list[Gate] = []


@recipe
def shout(word: str) -> str:
    """Look a word up twice."""
    return step(look_up, step(look_up, word))


def get_user(request: Request) -> str | None:
    return TOKENS.get(request.headers.get("authorization", "").removeprefix("Bearer "))


def make_web(folder: Path, script: list[Any], **bounds: float) -> WebApp:
    agent = Agent(
        ScriptedModel(script),
        name="helper",
        tools=[look_up, pay, wait_at_gate, read_book, charge],
        cache=False,
        early=False,
    )
    chosen = replace(Bounds(), **bounds)
    return serve_app([agent, shout], get_user=get_user, journal=folder / "journal.sqlite3", bounds=chosen)


def walk(
    folder: Path, script: list[Any], check: Callable[[Client, Client, WebApp], Awaitable[None]], **bounds: float
) -> None:
    """Serve it, and check it as ann and as bob."""

    async def go() -> None:
        GATES.append(Gate())
        web = make_web(folder, script, **bounds)
        async with serving(web) as ann:
            ann.token = "ann-token"
            await check(ann, Client(ann.port, "bob-token"), web)
        left = [task for task in asyncio.all_tasks() if task.get_name().startswith(("serve ", "run "))]
        assert left == []

    asyncio.run(go())


def list_fields(items: JSON, name: str) -> list[JSON]:
    assert isinstance(items, list)
    return [item[name] for item in items if isinstance(item, dict)]


async def start(client: Client, run: str = RUN, **said: Any) -> Answer:
    return await client.ask("POST", "/api/runs", {"run": run, **(said or {"message": "Hi"})})


def test_post_starts_a_run_and_streams_it_and_a_repeated_one_joins_it(tmp_path: Path) -> None:
    async def check(ann: Client, bob: Client, web: WebApp) -> None:
        first = await start(ann)
        assert first.status == 201
        assert first.headers["flowkit-run"] == RUN
        assert first.headers["flowkit-run-status"] == "running"
        assert fold(first.events)["status"] == ("done", "Hello.")
        assert (await start(ann)).events == first.events
        assert len(web.journal.runs()) == 1

    walk(tmp_path, [[thinking("Hm."), "Hel", "lo."]], check)


def test_viewer_that_leaves_ends_nothing_and_one_that_comes_goes_on(tmp_path: Path) -> None:
    async def check(ann: Client, bob: Client, web: WebApp) -> None:
        gate = GATES[-1]
        async with ann.open("POST", "/api/runs", {"run": RUN, "message": "Hi"}) as (answer, _):
            assert answer.status == 201
            await gate.reached.wait()
        seen = await ann.ask("GET", f"/api/runs/{RUN}/events", until=b"call.started")
        gate.opened.set()
        last = seen.body.count(b"id: ") - 1
        rest = await ann.ask("GET", f"/api/runs/{RUN}/events?after=3", headers={"last-event-id": str(last)})
        assert rest.headers["flowkit-run-status"] == "running"
        assert rest.events[-1]["status"] == "done"
        assert all(int(str(event["seq"])) > last for event in rest.events)

    walk(tmp_path, [[call("wait_at_gate")], "Done."], check)


def test_nothing_left_of_a_run_that_is_over_is_204_with_its_status(tmp_path: Path) -> None:
    async def check(ann: Client, bob: Client, web: WebApp) -> None:
        last = (await start(ann)).events[-1]["seq"]
        answer = await ann.ask("GET", f"/api/runs/{RUN}/events?after={last}")
        assert (answer.status, answer.headers["flowkit-run-status"]) == (204, "done")
        assert (await ann.ask("GET", f"/api/runs/{OTHER}/events")).status == 404

    walk(tmp_path, ["Hello."], check)


def test_nobody_reaches_anothers_run_by_any_route(tmp_path: Path) -> None:
    async def check(ann: Client, bob: Client, web: WebApp) -> None:
        await start(ann, message="Hi", session="s")
        before = [event["seq"] for event in (await ann.ask("GET", f"/api/runs/{RUN}/events")).events]
        for endpoint in web.endpoints:
            if "{run}" not in endpoint.path:
                continue
            json = dict(endpoint.example) if endpoint.body is not None else None
            path = endpoint.path.replace("{run}", RUN)
            answer = await bob.ask(endpoint.method, f"{path}?name=turn/1/call/0", json)
            assert answer.status == 404, endpoint.path
        assert (await bob.ask("GET", "/api/runs")).json["runs"] == []
        assert (await bob.ask("GET", "/api/runs?session=s")).json["runs"] == []
        assert (await bob.ask("GET", "/api/chat/s/stream")).status == 204
        approval = {"state": "approval-responded", "approval": {"id": f"{RUN}:turn/1/call/0", "approved": True}}
        said = {"id": "s", "messages": [{"id": RUN, "role": "assistant", "parts": [approval]}]}
        assert (await bob.ask("POST", "/api/chat", said)).status == 404
        assert (await ann.ask("GET", f"/api/runs/{RUN}/events")).body.count(b"id: ") == len(before)
        # Under the same id another user has a run of their own, in which nothing of the first is told.
        theirs = await start(bob, message="Hello", session="s")
        assert (theirs.events[0]["user"], theirs.events[-1]["output"]) == ("bob", "Hello.")

    walk(tmp_path, [[call("pay", won=5)], "Hello.", "Hello."], check)


def test_call_runs_when_it_is_approved_with_a_change_and_the_run_goes_on_by_itself(tmp_path: Path) -> None:
    async def check(ann: Client, bob: Client, web: WebApp) -> None:
        first = await start(ann)
        assert first.events[-1]["status"] == "waiting"
        shown = (await ann.ask("GET", f"/api/runs/{RUN}")).json
        assert list_fields(shown["waiting"], "call") == ["turn/1/call/0", "turn/1/call/1"]
        decisions = f"/api/runs/{RUN}/decisions"
        yes = {"call": "turn/1/call/0", "approved": True, "changes": {"won": 4}}
        wrong = {**yes, "changes": {"won": "four"}}
        assert (await ann.ask("POST", decisions, wrong)).status == 422
        assert (await ann.ask("POST", f"/api/runs/{RUN}/resume", {})).status == 409
        two = await asyncio.gather(*(ann.ask("POST", decisions, yes) for _ in range(2)))
        assert sorted(answer.status for answer in two) == [202, 409]
        refused = next(answer for answer in two if answer.status == 409)
        assert list_fields([refused.json["decided"]], "by") == ["ann"]
        assert (await ann.ask("GET", f"/api/runs/{RUN}")).json["status"] == "waiting"
        no = {"call": "turn/1/call/1", "approved": "yes", "reason": "too much"}
        assert (await ann.ask("POST", decisions, no)).status == 202
        after = first.events[-1]["seq"]
        rest = await ann.ask("GET", f"/api/runs/{RUN}/events?after={after}")
        seen = fold([*first.events, *rest.events])
        assert seen["turn/1/call/0"] == ("call.finished", "paid 4 to shop")
        assert seen["turn/1/call/1"] == ("call.denied", None)
        assert seen["status"] == ("done", "Settled.")
        assert (await ann.ask("POST", decisions, no)).status == 409
        assert (await ann.ask("POST", decisions, {"call": "turn/9", "approved": True})).status == 404
        whole = await ann.ask("GET", f"/api/runs/{RUN}/call?name=turn/1/call/0")
        assert whole.json["value"] == "paid 4 to shop"

    walk(tmp_path, [[call("pay", won=5), call("pay", won=7)], "Settled."], check)


def test_secret_is_told_to_nobody_and_kept_when_another_field_is_changed(tmp_path: Path) -> None:
    async def check(ann: Client, bob: Client, web: WebApp) -> None:
        first = await start(ann)
        yes = {"call": "turn/1/call/0", "approved": True, "changes": {"won": 6}}
        assert (await ann.ask("POST", f"/api/runs/{RUN}/decisions", yes)).status == 202
        whole = await ann.ask("GET", f"/api/runs/{RUN}/events")
        assert fold(whole.events)["turn/1/call/0"] == ("call.finished", "charged 6 with a token of 10")
        shown = await ann.ask("GET", f"/api/runs/{RUN}")
        one = await ann.ask("GET", f"/api/runs/{RUN}/call?name=turn/1/call/0")
        for answer in (first, whole, shown, one):
            assert b"TOK-SECRET" not in answer.body

    walk(tmp_path, [[call("charge", won=5, token="TOK-SECRET")], "Charged."], check)


def test_decision_reaches_a_run_that_still_goes_on(tmp_path: Path) -> None:
    async def check(ann: Client, bob: Client, web: WebApp) -> None:
        gate = GATES[-1]
        watching = asyncio.create_task(start(ann))
        await gate.reached.wait()
        yes = {"call": "turn/1/call/1", "approved": True}
        answers = [(await ann.ask("POST", f"/api/runs/{RUN}/decisions", yes)).status for _ in range(2)]
        assert answers == [202, 409]
        gate.opened.set()
        seen = fold((await watching).events)
        assert seen["turn/1/call/1"] == ("call.finished", "paid 5 to shop")
        assert seen["status"] == ("done", "Done.")

    walk(tmp_path, [[call("wait_at_gate"), call("pay", won=5)], "Done."], check)


def test_cancel_ends_every_call_and_a_run_that_waits_too(tmp_path: Path) -> None:
    async def check(ann: Client, bob: Client, web: WebApp) -> None:
        watching = asyncio.create_task(start(ann))
        await GATES[-1].reached.wait()
        assert (await ann.ask("POST", f"/api/runs/{RUN}/cancel", {})).status == 202
        seen = fold((await watching).events)
        assert seen["turn/1/call/0"] == ("call.cancelled", None)
        assert seen["status"] == ("cancelled", None)
        assert (await ann.ask("POST", f"/api/runs/{RUN}/cancel", {})).status == 409
        assert (await ann.ask("POST", f"/api/runs/{RUN}/resume", {})).status == 409
        assert (await start(ann, OTHER)).events[-1]["status"] == "waiting"
        assert (await ann.ask("POST", f"/api/runs/{OTHER}/cancel", {})).status == 202
        shown = (await ann.ask("GET", f"/api/runs/{OTHER}")).json
        assert (shown["status"], shown["waiting"]) == ("cancelled", [])

    walk(tmp_path, [[call("wait_at_gate")], [call("pay", won=1)]], check)


def test_fork_is_a_new_run_that_begins_where_the_first_one_was(tmp_path: Path) -> None:
    async def check(ann: Client, bob: Client, web: WebApp) -> None:
        await start(ann)
        fork = {"at": "turn/2", "message": "And now?", "results": {"turn/1/call/0": "COFFEE"}, "run": OTHER}
        answer = await ann.ask("POST", f"/api/runs/{RUN}/fork", fork)
        assert (answer.status, answer.headers["flowkit-run"]) == (201, OTHER)
        assert answer.events[-1]["output"] == "Coffee."
        assert [event["type"] for event in answer.events if str(event["type"]).startswith("call.")] == []
        again = await ann.ask("POST", f"/api/runs/{RUN}/fork", {"at": "turn/2"})
        shown = await ann.ask("GET", f"/api/runs/{again.headers['flowkit-run']}")
        assert shown.json["title"] == "Hi"
        assert (await ann.ask("POST", f"/api/runs/{RUN}/fork", {"at": "turn/7"})).status == 422
        assert (await bob.ask("POST", f"/api/runs/{RUN}/fork", {"at": "turn/1"})).status == 404

    walk(tmp_path, [[call("look_up", word="tea")], "Tea.", "Coffee.", "Tea again."], check)


def test_recipe_is_run_with_its_inputs_and_listed_with_them(tmp_path: Path) -> None:
    async def check(ann: Client, bob: Client, web: WebApp) -> None:
        assert (await start(ann, app="shout", inputs={"word": 5})).status == 422
        done = await start(ann, app="shout", inputs={"word": "tea"})
        assert done.events[-1]["output"] == "TEA"
        await start(ann, OTHER, message="Where is my order?\nPlease say.", session="today")
        listed = (await ann.ask("GET", "/api/runs")).json["runs"]
        assert list_fields(listed, "name") == ["helper", "shout"]
        assert list_fields(listed, "title") == ["Where is my order? Please say.", "word=tea"]
        today = (await ann.ask("GET", "/api/runs?session=today")).json["runs"]
        assert list_fields(today, "run") == [OTHER]
        assert (await ann.ask("GET", "/api/runs?status=waiting")).json["runs"] == []
        assert (await ann.ask("GET", "/api/runs?before=x")).status == 422
        app = (await ann.ask("GET", "/api/app", headers={"accept-language": "ko-KR,en"})).json
        assert app["language"] == "ko"
        assert list_fields(app["recipes"], "name") == ["shout"]
        assert str(tmp_path) not in str(app)

    walk(tmp_path, ["On its way."], check)


def test_list_tells_what_each_run_cost(tmp_path: Path) -> None:
    async def check(ann: Client, bob: Client, web: WebApp) -> None:
        await start(ann)
        await start(ann, OTHER)
        for _ in range(2):  # the second answer comes from what is kept
            listed = (await ann.ask("GET", "/api/runs")).json["runs"]
            assert list_fields(listed, "cost_usd") == [0.0, 0.25]
            assert list_fields(listed, "cost_at_least") == [True, False]  # the later one has no known price

    walk(tmp_path, [["Hi.", Usage(100, 50, cost_usd=0.25)], ["Hi.", Usage(100, 50)]], check)


def test_long_result_is_cut_in_the_stream_and_whole_by_its_name(tmp_path: Path) -> None:
    async def check(ann: Client, bob: Client, web: WebApp) -> None:
        told = next(event for event in (await start(ann)).events if event["type"] == "call.finished")
        assert told["truncated"] == 400 * (200 * 7 + 3) + 1
        whole = await ann.ask("GET", f"/api/runs/{RUN}/call?name=turn/1/call/0")
        assert whole.json["value"] == ["배송 " * 200] * 400

    walk(tmp_path, [[call("read_book")], "Long."], check)


def test_fifth_stream_and_ninth_run_of_a_user_are_refused_until_one_closes(tmp_path: Path) -> None:
    async def check(ann: Client, bob: Client, web: WebApp) -> None:
        gate = GATES[-1]
        events = f"/api/runs/{RUN}/events"
        async with ann.open("POST", "/api/runs", {"run": RUN, "message": "Hi"}):
            await gate.reached.wait()
            async with ann.open("GET", events) as (second, _):
                assert second.status == 200
                third = await ann.ask("GET", events)
                assert (third.status, third.headers["retry-after"]) == (429, "2")
                assert (await start(ann, OTHER)).status == 429
                assert len(web.journal.runs()) == 1
        while web.streams_open:  # noqa: ASYNC110  # the server notices by itself, and tells nobody
            await asyncio.sleep(0)
        refused = await start(ann, OTHER)
        assert (refused.status, refused.headers["retry-after"]) == (429, "5")
        assert (await start(bob, OTHER, app="shout", inputs={"word": "a"})).status == 201
        gate.opened.set()
        assert (await ann.ask("GET", events)).events[-1]["status"] == "done"
        assert (await start(ann, OTHER)).status == 201

    walk(tmp_path, [[call("wait_at_gate")], "Done.", "Again."], check, streams=2, runs=1)


def test_app_is_served_under_a_prefix_of_another_app(tmp_path: Path) -> None:
    async def go() -> None:
        web = make_web(tmp_path, ["Hello."])

        async def home(request: Request) -> PlainTextResponse:
            return PlainTextResponse("home")

        outer = Starlette(routes=[Route("/", home), Mount("/flow", web)])
        async with serving(outer, web.aclose) as client:
            client.token = "ann-token"
            assert (await client.ask("GET", "/")).body == b"home"
            page = await client.ask("GET", "/flow/")
            assert page.status == 200
            assert b'src="/' not in page.body, "a page under a prefix names its files relatively"
            assert b'href="/' not in page.body
            done = await client.ask("POST", "/flow/api/runs", {"message": "Hi", "run": RUN})
            assert done.events[-1]["output"] == "Hello."
            assert (await client.ask("GET", "/flow/api/runs", headers={"authorization": None})).status == 401
            assert (await client.ask("GET", "/api/runs")).status == 404
            foreign = {"origin": "https://evil.example"}
            assert (await client.ask("POST", "/flow/api/runs", {"message": "Hi"}, headers=foreign)).status == 403

    asyncio.run(go())


def test_page_and_its_files_are_served_without_a_token_and_nothing_beside_them(tmp_path: Path) -> None:
    async def check(ann: Client, bob: Client, web: WebApp) -> None:
        ann.token = None
        page = await ann.ask("GET", "/")
        assert page.status == 200
        assert page.headers["content-type"].startswith("text/html")
        assert (await ann.ask("HEAD", "/")).status == 200
        for name in ("../serving.py", "%2e%2e/serving.py", "..%2fserving.py", "page/index.html", "index.html%00"):
            assert (await ann.ask("GET", f"/{name}")).status == 404

    walk(tmp_path, [], check)


def test_runs_of_a_process_that_ends_go_on_in_another(tmp_path: Path) -> None:
    async def go() -> None:
        GATES.append(Gate())
        web = make_web(tmp_path, [["One. ", call("wait_at_gate")]], grace_s=0.05)
        async with serving(web) as ann:
            ann.token = "ann-token"
            watching = asyncio.create_task(start(ann))
            await GATES[-1].reached.wait()
            await web.aclose()
            seen = await watching
        assert [event for event in seen.events if event["type"] == "run.finished"] == []
        again = make_web(tmp_path, ["Two."])
        GATES[-1].opened.set()
        async with serving(again) as ann:
            ann.token = "ann-token"
            shown = await ann.ask("GET", f"/api/runs/{RUN}")
            assert shown.json["status"] == "stopped"
            before = await ann.ask("GET", f"/api/runs/{RUN}/events")
            assert before.headers["flowkit-run-status"] == "stopped"
            assert (await ann.ask("POST", f"/api/runs/{RUN}/resume", {})).status == 202
            rest = await ann.ask("GET", f"/api/runs/{RUN}/events?after={before.events[-1]['seq']}")
        both = fold([*before.events, *rest.events])
        assert both["text.delta", 1] == "One. "
        assert both["turn/1/call/0"] == ("call.finished", "through")
        assert both["status"] == ("done", "Two.")

    asyncio.run(go())


def test_two_agents_of_one_name_and_nothing_at_all_are_refused() -> None:
    agent = Agent(ScriptedModel([]), name="a")
    with pytest.raises(ConfigurationError, match="called 'a'"):
        serve_app([agent, Agent(ScriptedModel([]), name="a")], get_user=get_user)
    with pytest.raises(ConfigurationError, match="no agent and no recipe"):
        serve_app([], get_user=get_user)


def test_error_of_the_apps_own_data_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(
        "from flowkit import Agent, ConfigurationError, ScriptedModel\n"
        "agent = Agent(ScriptedModel([]))\n"
        "def open_data(user: str = 'c-1'):\n"
        "    raise ConfigurationError(f'no customer {user!r}')\n"
    )

    async def go() -> None:
        web = serve_app(path, get_user=get_user, journal=Journal(tmp_path / "journal.sqlite3"))
        async with serving(web) as ann:
            ann.token = "ann-token"
            answer = await start(ann)
            assert (answer.status, answer.json["error"]) == (422, "no customer 'ann'")
        web.journal.close()

    asyncio.run(go())
