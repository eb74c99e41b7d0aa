"""The address of a PostgreSQL journal, with a readable form: no error, log line or `repr` contains the password."""

import ipaddress
import logging
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from flowkit.errors import ConfigurationError

SCHEMES = ("postgresql://", "postgres://")
CONNECT_S = 5
"""How long making a connection to one host may take."""
_ENCODING = "; in a user and a password, write '@' as %40, ':' as %3A, '/' as %2F, '?' as %3F, '#' as %23, '%' as %25"
logger = logging.getLogger("flowkit.journal")


@dataclass(frozen=True, slots=True)
class Address:
    """A connection string of libpq, and its name."""

    name: str
    parameters: dict[str, Any] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False, default=())

    def hide(self, text: str) -> str:
        """Return the text without the secrets of the address."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def read_address(url: str, *, what: str = "journal") -> Address:
    """Parse the URL of a journal, or of `what` else; raises `ConfigurationError` for a wrong one, and where the extra is missing."""
    try:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise ConfigurationError(
            f"a {what} on PostgreSQL needs psycopg: pip install 'flowkit-agents[postgres]'"
        ) from error
    try:
        given: dict[str, Any] = dict(conninfo_to_dict(url))
    except psycopg.Error:
        # After an '@' in what looks like options, they are a part of a password.
        unknown = None if "@" in url.partition("?")[2] else _find_unknown(url)
        if unknown:
            raise ConfigurationError(
                f"the {what} {_hide_in(url)!r}: {unknown!r} is no option of PostgreSQL's client; some that are:"
                " sslmode, sslrootcert, connect_timeout, application_name"
            ) from None
        # libpq's own message repeats the URL, the password included.
        raise ConfigurationError(
            f"the {what} {_hide_in(url)!r} isn't a URL that PostgreSQL's client reads:"
            f" expected postgresql://user@host:5432/database{_ENCODING}"
        ) from None
    places = [*(host[1:] for host in str(given.get("host") or "").split(",")), str(given.get("dbname") or "")]
    if any("@" in place for place in places) and ("%40" not in url or url.count("@") > 1):
        # A character of the password ended it, and the rest of it would be shown as a host or a database.
        raise ConfigurationError(f"the {what} {_hide_in(url)!r} has an '@' after its host{_ENCODING}")
    secrets = tuple(str(given[key]) for key in ("password", "sslpassword") if given.get(key))
    found = re.search(r"//[^/@]*:([^/@]*)@", url)
    if found and found[1]:
        secrets = (*secrets, found[1])
    host = str(given.get("host") or given.get("hostaddr") or "localhost")
    user = f"{given['user']}@" if given.get("user") else ""
    port = f":{given['port']}" if given.get("port") else ""
    name = f"postgresql://{user}{host}{port}/{given.get('dbname') or ''}"
    parameters = {
        "connect_timeout": CONNECT_S,
        "application_name": "flowkit",
        # After a failover the name may resolve to two servers for a while; choose the one that accepts writes.
        "target_session_attrs": "read-write",
        # A dead host sends no answer: without these limits a statement would wait for hours.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
        **given,
        "client_encoding": "UTF8",
    }
    return Address(name, parameters, secrets)


def warn_if_unchecked(address: Address) -> None:
    """Log that the server isn't checked, where anyone on the network path could impersonate it."""
    hosts = str(address.parameters.get("host") or "localhost").split(",")
    if address.parameters.get("sslmode") != "verify-full" and not all(map(_is_here, hosts)):
        logger.warning(
            "the journal %s: anyone on the network path can read it or answer in its place; sslmode=verify-full checks the"
            " server's certificate",
            address.name,
        )


def _find_unknown(url: str) -> str | None:
    """Return the name of the first option in the URL that libpq doesn't have."""
    from psycopg import pq

    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()} | {"ssl"}
    query = url.partition("?")[2].partition("#")[0]
    return next((name for name, _ in parse_qsl(query, keep_blank_values=True) if name not in known), None)


def _is_here(host: str) -> bool:
    if host.startswith(("/", "@")) or host in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hide_in(url: str) -> str:
    """Return the URL without anything that may be a password, also one whose characters should have been encoded.

    >>> _hide_in("postgresql://me:secret@host/db?password=x&a=b")
    'postgresql://***@host/db?***'
    >>> _hide_in("postgresql://me:sec/r?et@host/db"), _hide_in("postgresql://me:s@e#cret@host/db")
    ('postgresql://***', 'postgresql://***@host/db')
    """
    scheme, _, rest = url.partition("://")
    rest, question, options = rest.partition("?")
    before, at, after = rest.rpartition("@")
    if "@" in options:
        return f"{scheme}://***"
    return f"{scheme}://{'***@' + after if at and before else rest}{'?***' if question else ''}"
