"""Models behind a private certificate authority, a client certificate or a proxy: real TLS and sockets, every interface."""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx2
import pytest

from flowkit import ModelError
from tests.server import ScriptedServer
from tests.test_deployment import Make, ask, for_each_interface, hello, key_of

pytest.importorskip("cryptography")
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """An authority that nobody else trusts; it writes certificates into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        made = self._begin(self._name, self._key).add_extension(x509.BasicConstraints(True, None), critical=True)
        self.path = folder / "ca.pem"
        self.path.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> Path:
        """Write a key and its certificate, good for a server on loopback and for a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        made = self._begin(subject, key).add_extension(names, critical=False).sign(self._key, hashes.SHA256())
        path = self._folder / f"{name}.pem"
        form = serialization.PrivateFormat.PKCS8
        path.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
            + made.public_bytes(serialization.Encoding.PEM)
        )
        return path

    def _begin(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.close()


async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Pass bytes both ways between a client and a server on this port."""
    there, back = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.TaskGroup() as group:
        group.create_task(pipe(reader, back))
        group.create_task(pipe(there, writer))


@asynccontextmanager
async def listen(handle: Any, tls: ssl.SSLContext | None = None) -> AsyncGenerator[int]:
    tasks: set[asyncio.Task[None]] = set()

    async def own(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handle(reader, writer)
        except asyncio.CancelledError:
            pass  # the test is over; the server logs what leaves its handler
        finally:
            writer.close()

    server = await asyncio.start_server(own, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def tls_front(port: int, tls: ssl.SSLContext) -> AsyncGenerator[str]:
    """Listen with TLS before a server that speaks plain HTTP."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await join(reader, writer, port)

    async with listen(handle, tls) as front:
        yield f"https://127.0.0.1:{front}/v1"


@asynccontextmanager
async def proxy(seen: list[str]) -> AsyncGenerator[str]:
    """A proxy for TLS: it opens a tunnel, and hears only where to."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head.decode())
        port = int(head.split(b" ")[1].rpartition(b":")[2])
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await join(reader, writer, port)

    async with listen(handle) as port:
        yield f"http://127.0.0.1:{port}"


def server_tls(certificate: Path, *, clients_of: Path | None = None) -> ssl.SSLContext:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=clients_of)
    tls.load_cert_chain(certificate)
    if clients_of is not None:
        tls.verify_mode = ssl.CERT_REQUIRED
    return tls


def client_tls(authority: Path, certificate: Path | None = None) -> ssl.SSLContext:
    tls = ssl.create_default_context(cafile=authority)
    if certificate is not None:
        tls.load_cert_chain(certificate)
    return tls


@for_each_interface
def test_an_authority_of_ones_own_is_trusted_only_where_it_is_given(make: Make, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("server")

    async def both(port: int) -> str:
        async with tls_front(port, server_tls(certificate)) as base_url:
            with pytest.raises(ModelError, match="certificate") as caught:
                await ask(make(base_url))
            assert "CERTIFICATE_VERIFY_FAILED" in str(caught.value)
            async with httpx2.AsyncClient(verify=client_tls(authority.path)) as client:
                return await ask(make(base_url, http_client=client))

    with ScriptedServer([hello(make)]) as server:
        assert asyncio.run(both(server.port)) == "Hello"
        assert len(server.requests) == 1


@for_each_interface
def test_a_client_certificate_is_shown_where_the_server_asks_for_one(make: Make, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, mine = authority.issue("server"), authority.issue("client")

    async def both(port: int) -> str:
        async with tls_front(port, server_tls(certificate, clients_of=authority.path)) as base_url:
            async with httpx2.AsyncClient(verify=client_tls(authority.path)) as client:
                with pytest.raises(ModelError):
                    await ask(make(base_url, http_client=client))
            async with httpx2.AsyncClient(verify=client_tls(authority.path, mine)) as client:
                return await ask(make(base_url, http_client=client))

    with ScriptedServer([hello(make)]) as server:
        assert asyncio.run(both(server.port)) == "Hello"
        assert len(server.requests) == 1


@for_each_interface
def test_a_proxy_carries_the_requests_and_never_sees_the_key(make: Make, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("server")
    seen: list[str] = []
    keys = iter(["sk-old", "sk-new"])

    async def both(port: int) -> list[str]:
        async with (
            tls_front(port, server_tls(certificate)) as base_url,
            proxy(seen) as by,
            httpx2.AsyncClient(proxy=by, verify=client_tls(authority.path)) as client,
        ):
            model = make(base_url, http_client=client, api_key=lambda: next(keys))
            return [await ask(model), await ask(model)]

    with ScriptedServer([hello(make)] * 2) as server:
        assert asyncio.run(both(server.port)) == ["Hello"] * 2
        assert [key_of(request.headers) for request in server.requests] == ["sk-old", "sk-new"]
    assert len(seen) == 1  # a new key, and the same tunnel
    assert seen[0].startswith("CONNECT 127.0.0.1:")
    assert "sk-" not in seen[0]


@for_each_interface
def test_a_proxy_that_is_down_is_told_as_no_connection(make: Make) -> None:
    async def through_nothing() -> None:
        async with httpx2.AsyncClient(proxy="http://127.0.0.1:9") as client:
            await ask(make("http://127.0.0.1:1/v1", http_client=client))

    with pytest.raises(ModelError, match=r"reach|connect") as caught:
        asyncio.run(through_nothing())
    assert caught.value.retryable


@for_each_interface
def test_the_environments_proxy_and_authority_count_without_a_client(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("server")
    seen: list[str] = []

    async def through(port: int) -> str:
        async with tls_front(port, server_tls(certificate)) as base_url, proxy(seen) as by:
            monkeypatch.setenv("HTTPS_PROXY", by)
            for name in ("NO_PROXY", "no_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
                monkeypatch.delenv(name, raising=False)
            return await ask(make(base_url))

    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    from flowkit.models.wire import clients

    clients._tls.cache_clear()  # pyright: ignore[reportPrivateUsage]  # what a new process begins with
    try:
        with ScriptedServer([hello(make)]) as server:
            assert asyncio.run(through(server.port)) == "Hello"
    finally:
        clients._tls.cache_clear()  # pyright: ignore[reportPrivateUsage]
    assert len(seen) == 1
