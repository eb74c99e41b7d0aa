"""A front end's own server: its files, and `/api` of a flowkit server behind it, whose streams it can cut.

    python -m tests.cutting_proxy FOLDER http://127.0.0.1:8000 10,0

cuts the first stream after 10 pieces and the second before its first; then it cuts none. It prints its address.
"""

import itertools
import sys
from functools import partial
from http.client import HTTPConnection
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

LEFT_OUT = {"host", "origin", "referer", "connection"}
"""What a proxy in front of a server doesn't pass on; the browser's own marks go with `sec-`."""


class Handler(SimpleHTTPRequestHandler):
    target: str
    cuts: "itertools.chain[int | None]"

    def do_GET(self) -> None:
        if self.path.startswith("/api"):
            self._pass_on()
        else:
            super().do_GET()

    def do_POST(self) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        is_stream = self.path == "/api/runs" if self.command == "POST" else self.path.split("?")[0].endswith("/events")
        pieces = next(self.cuts) if is_stream else None
        self.close_connection = True
        if pieces == 0:
            return
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in LEFT_OUT and not name.lower().startswith("sec-")
        }
        connection = HTTPConnection(self.target, timeout=60)
        try:
            connection.request(self.command, self.path, body or None, headers)
            response = connection.getresponse()
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            self.end_headers()
            while piece := response.read1():
                self.wfile.write(piece)
                if pieces is not None and (pieces := pieces - 1) == 0:
                    return
        except OSError:
            pass  # the browser has left
        finally:
            connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def main() -> None:
    folder, target, *cuts = sys.argv[1:]
    Handler.target = urlsplit(target).netloc
    wanted = [int(cut) for cut in cuts[0].split(",")] if cuts else []
    Handler.cuts = itertools.chain(wanted, itertools.repeat(None))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        server.daemon_threads = True
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
