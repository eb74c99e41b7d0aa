"""An MCP server of the handshake era without any package, that says whatever a test wants; on standard input and output.

Its argument is a JSON file: `pages` are the listings, `results` what each tool gives; the other keys are what is odd
about it. What it hears and nobody answers goes into `heard` beside that file.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

IS_RUN = __name__ == "__main__"  # and not imported by whoever looks for doctests
CONFIG = Path(sys.argv[1] if IS_RUN else "")
ODD: dict[str, Any] = json.loads(CONFIG.read_text()) if IS_RUN else {}


def send(**message: Any) -> None:
    """Write one message."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


put_aside: list[dict[str, Any]] = []
"""Requests that came while this server waited for the client's answer; they are read before all others."""


def hear() -> dict[str, Any]:
    """Read one message; the end of input ends the program."""
    return put_aside.pop(0) if put_aside else read()


def read() -> dict[str, Any]:
    """Read one message from standard input."""
    line = sys.stdin.readline()
    if not line:
        raise SystemExit
    return json.loads(line)


def ask(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Ask the client, as this era's servers may, and wait for its answer."""
    send(id="asked", method=method, params=params)
    while True:
        answer = read()
        if answer.get("id") == "asked":
            return answer
        if "method" in answer and "id" in answer:
            put_aside.append(answer)
        else:
            note(answer)


def note(message: dict[str, Any]) -> None:
    """Keep what was heard."""
    with (CONFIG.parent / "heard").open("a") as file:
        file.write(json.dumps(message) + "\n")


def list_page(cursor: str | None) -> dict[str, Any]:
    """One page, and where the next one begins."""
    if ODD.get("endless"):
        number = int(cursor or 0)
        tool = {"name": f"tool{number}", "inputSchema": {"type": "object"}}
        return {"tools": [tool], "nextCursor": str(number + 1)}
    pages = json.loads(CONFIG.read_text())["pages"]
    position = int(cursor or 0)
    page: dict[str, Any] = {"tools": pages[position]}
    if ODD.get("cursor_repeats") or position + 1 < len(pages):
        page["nextCursor"] = str(min(position + 1, len(pages) - 1))
    return page


def call(id: object, params: dict[str, Any]) -> None:
    """Answer a call."""
    name, token = params["name"], params.get("_meta", {}).get("progressToken")
    note({"called": name})
    if "traceparent" in params.get("_meta", {}):
        note({"traceparent": params["_meta"]["traceparent"]})
    match name:
        case "progress":
            for done, total in ((1, 3), (2, None), (3, 3)):
                told = {"progressToken": token, "progress": done, **({} if total is None else {"total": total})}
                send(method="notifications/progress", params={**told, "message": f"step {done}"})
        case "noise":
            sys.stdout.write("loading the model, please wait\n{not json}\n")
        case "elicit":
            schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
            answer = ask("elicitation/create", {"message": "Who are you?", "requestedSchema": schema})
            send(id=id, result=text(json.dumps(answer.get("result") or answer.get("error"), sort_keys=True)))
            return
        case "sample":
            answer = ask("sampling/createMessage", {"messages": [], "maxTokens": 5})
            send(id=id, result=text("refused" if "error" in answer else "sampled"))
            return
        case "grow":
            ODD["pages"] = json.loads(CONFIG.read_text())["pages"]
            ODD["pages"][0].append({"name": "grown", "inputSchema": {"type": "object"}})
            CONFIG.write_text(json.dumps(ODD))
            send(method="notifications/tools/list_changed")
        case "twice":
            send(id=id, result=text("first"))
            send(id=id, result=text("second"))
            send(id=id, error={"code": -32603, "message": "third"})
            return
        case "change":
            config = json.loads(CONFIG.read_text())
            config["pages"] = [[{"name": "change", "inputSchema": {"type": "object"}, "description": "Another."}]]
            CONFIG.write_text(json.dumps(config))
            send(method="notifications/tools/list_changed")
        case "flood":
            for number in range(3000):
                send(
                    method="notifications/progress",
                    params={"progressToken": token, "progress": number, "message": f"step {number}"},
                )
        case "junk":
            sys.stdout.buffer.write(
                b"\x00\xff\xfe" * 1000 + b"\n\n[]\n{}\n" + b'{"jsonrpc":"2.0","id":"none","result":{}}\n'
            )
            sys.stdout.flush()
        case "endless_line":
            try:
                while True:
                    sys.stdout.buffer.write(b"x" * 65536)
                    sys.stdout.flush()
            except BrokenPipeError:
                raise SystemExit from None
        case "deaf":
            time.sleep(600)
        case _:
            pass
    if name in ODD.get("lines", {}):
        sys.stdout.write(ODD["lines"][name].replace("ID", json.dumps(id)) + "\n")
        sys.stdout.flush()
        return
    result = ODD.get("results", {}).get(name, text(f"{name} done"))
    if "code" in result:
        send(id=id, error=result)
    else:
        send(id=id, result=result)
    if name == "progress":
        send(method="notifications/progress", params={"progressToken": token, "progress": 4, "message": "too late"})


def text(said: str) -> dict[str, Any]:
    """A result of one text."""
    return {"content": [{"type": "text", "text": said}]}


def main() -> None:
    """Answer until standard input ends."""
    time.sleep(ODD.get("starts_after_s", 0))  # with its file of a process already there
    if ODD.get("noise"):
        sys.stdout.write("Welcome!\n")
    while True:
        message = hear()
        id, method = message.get("id"), message.get("method")
        params: dict[str, Any] = message.get("params") or {}
        if id is None:
            note(message)
            continue
        if method == ODD.get("hangs_at"):
            note({"hangs": method})
            time.sleep(600)
        match method:
            case "initialize":
                version = ODD.get("version", params["protocolVersion"])
                info = {"name": "raw", "version": "1"}
                capabilities = {"tools": {"listChanged": True}}
                result = {"protocolVersion": version, "capabilities": capabilities, "serverInfo": info}
                send(id=id, result={**result, "instructions": "Say please."})
            case "tools/list":
                send(id=id, result=list_page(params.get("cursor")))
            case "tools/call":
                call(id, params)
            case "server/discover" if ODD.get("ignores_discover"):
                note({"ignored": "server/discover"})
            case "ping":
                send(id=id, result={})
            case _:
                send(id=id, error={"code": -32601, "message": f"there is no {method}"})


if IS_RUN:
    if ODD.get("stubborn"):
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (CONFIG.parent / f"pid-{__import__('os').getpid()}").touch()
        try:
            main()
        except SystemExit:
            time.sleep(600)
    else:
        (CONFIG.parent / f"pid-{__import__('os').getpid()}").touch()
        main()
