"""The shop's carrier: a real HTTP service on loopback, as slow as a real one.

It answers `GET /parcels/NUMBER` with where the parcel is. A shop has such a service elsewhere; here it stands in the
same process, so that the app runs on one machine, and its latency is what makes running things at once worth it.
"""

import json
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote


class CarrierUnavailable(Exception):
    """The carrier can't be reached or doesn't answer with a parcel."""


@dataclass(frozen=True)
class Carrier:
    """The service's address."""

    host: str
    port: int

    def find_parcel(self, tracking_number: str, timeout_s: float = 5.0) -> dict[str, str] | None:
        """Find what the service reports of this parcel; None when it knows none.

        Raises `CarrierUnavailable`. Blocking: call it in a tool that is no coroutine, which runs in a thread.
        """
        connection = HTTPConnection(self.host, self.port, timeout=timeout_s)
        try:
            connection.request("GET", f"/parcels/{quote(tracking_number, safe='')}")
            response = connection.getresponse()
            body = response.read()
        except OSError as error:
            raise CarrierUnavailable(f"the carrier doesn't answer: {error}") from error
        finally:
            connection.close()
        if response.status == 404:
            return None
        if response.status != 200:
            raise CarrierUnavailable(f"the carrier answered with status {response.status}")
        return {str(name): str(value) for name, value in json.loads(body).items()}


@contextmanager
def run_carrier(parcels: Mapping[str, Mapping[str, str]], latency_s: float = 0.25) -> Generator[Carrier]:
    """Run the service on a free port of the loopback address; it stops on leaving."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.parcels = parcels
    server.latency_s = latency_s
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="shop-carrier")
    thread.start()
    try:
        yield Carrier("127.0.0.1", server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    parcels: Mapping[str, Mapping[str, str]]
    latency_s: float


class _Handler(BaseHTTPRequestHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]  # the only server that has this handler

    def do_GET(self) -> None:
        time.sleep(self.server.latency_s)
        number = unquote(self.path.removeprefix("/parcels/"))
        parcel = self.server.parcels.get(number)
        body = json.dumps(parcel or {"error": f"no parcel {number}"}, ensure_ascii=False).encode()
        self.send_response(200 if parcel else 404)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the terminal belongs to the conversation."""
