"""The address of a Redis server, the way to connect, and whether the cache currently avoids it."""

import logging
import re
from difflib import get_close_matches
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from flowkit.cache.counters import Counters
from flowkit.clock import Clock
from flowkit.errors import ConfigurationError

CONNECTIONS = 8
"""The most connections of one loop to one server."""
OUTAGE_S = 30.0
"""How long the cache does without Redis after a failure."""
SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss", "unix": "unix"}
"""The schemes of an address, and redis-py's names for them."""

_TEXT = {"username", "password", "client_name"}
_NUMBERS = {"db", "max_connections", "health_check_interval", "protocol"}
_SECONDS = {"timeout", "socket_timeout", "socket_connect_timeout"}
_SWITCHES = {"socket_keepalive", "retry_on_timeout"}
_OF_TLS = {
    *("ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_ciphers"),
    *("ssl_cert_reqs", "ssl_check_hostname"),
}
OPTIONS = _TEXT | _NUMBERS | _SECONDS | _SWITCHES | _OF_TLS
"""The options allowed after the `?` of an address: those of redis-py, including the ones that this cache sets itself."""

Address = tuple[str, int] | None
"""A node of a cluster; None is the server that the URL names."""

logger = logging.getLogger("flowkit.cache")


class Unreachable(Exception):
    """Redis didn't answer, or refused; never seen outside the cache."""


class RedisAddress:
    """Where Redis is: an address of its own kind, shown without its password."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        parts = urlsplit(url)
        scheme = SCHEMES.get(parts.scheme)
        if scheme is None:
            raise ConfigurationError(f"{hide_password(url)!r} isn't an address of Redis such as redis://host:6379/0")
        try:
            port = parts.port
        except ValueError:
            raise ConfigurationError(f"the address {hide_password(url)!r} has no number as its port") from None
        database = parts.path.strip("/")
        if scheme != "unix" and database and not database.isdecimal():
            # redis-py would take database 0 instead.
            raise ConfigurationError(
                f"the address {hide_password(url)!r} ends in {database!r}, expected a database's number"
            )
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            _check_option(url, name, value, is_tls=scheme == "rediss")
        self.shown = hide_password(url)
        self.timeout_s = timeout_s
        self.name = f"{parts.hostname}:{port}{parts.path}"
        """The part of the address that identifies the place, without the credentials."""
        self._url = scheme + url[len(parts.scheme) :]

    def make_pool(self, address: Address, greet: Any) -> Any:
        """Make the connections to a node; `greet` is called with each that is new."""
        connections: Any = import_module("redis.asyncio.connection")
        try:
            options = dict(connections.parse_url(self._url))
        except ValueError as error:
            raise ConfigurationError(f"the address {self.shown!r} isn't right: {error}") from error
        kind = options.pop("connection_class", connections.Connection)
        if address is not None:
            options.update(host=address[0], port=address[1])
        options.update(
            # Redis 7.0 refuses CLIENT SETINFO to users with an explicit list of permissions.
            driver_info=None,
            max_connections=CONNECTIONS,
            timeout=self.timeout_s,
            # `Bound` of the link is in their place: these would count the time that the loop was busy with something else.
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=import_module("redis.asyncio.retry").Retry(import_module("redis.backoff").NoBackoff(), 0),
            protocol=2,
            maint_notifications_config=import_module("redis.maint_notifications").MaintNotificationsConfig(
                enabled=False
            ),
            redis_connect_func=greet,
        )
        return connections.BlockingConnectionPool(connection_class=kind, **options)


def _check_option(url: str, name: str, value: str, *, is_tls: bool) -> None:
    """Raise `ConfigurationError` for an option that redis-py would stumble over with the first connection."""
    wrong = ""
    if name not in OPTIONS:
        near = get_close_matches(name, OPTIONS, 1)
        wrong = f"{name!r} is no option of it" + (f"; did you mean {near[0]!r}?" if near else "")
    elif name in _OF_TLS and not is_tls:
        wrong = f"{name!r} is of a connection by TLS, which begins with rediss://"
    elif name in _NUMBERS and not value.isdecimal():
        wrong = f"{name!r} is {value!r}, expected a number"
    elif name in _SECONDS and not re.fullmatch(r"\d*\.?\d+", value):
        wrong = f"{name!r} is {value!r}, expected seconds"
    elif name == "ssl_cert_reqs" and value not in ("none", "optional", "required"):
        wrong = f"{name!r} is {value!r}, expected none, optional or required"
    if wrong:
        raise ConfigurationError(f"the address {hide_password(url)!r} isn't right: {wrong}")


class Outage:
    """Whether the cache does without Redis now; shared by all loops of a cache."""

    def __init__(self, place: RedisAddress, clock: Clock, counters: Counters) -> None:
        self._place = place
        self._clock = clock
        self._counters = counters
        self._until = 0.0
        self._has_warned = False

    def is_on(self) -> bool:
        return self._clock.monotonic() < self._until

    def begin(self, error: Exception) -> None:
        """Stop using Redis for a while."""
        self._until = self._clock.monotonic() + OUTAGE_S
        self.note(error)

    def end(self) -> None:
        """Use Redis again: it has answered."""
        self._until = 0.0

    def note(self, error: object) -> None:
        """Count the error, and log it once."""
        self._counters.errors += 1
        if not self._has_warned:
            self._has_warned = True
            logger.warning("the cache at %s is in trouble and answers with misses: %s", self._place.shown, error)


def hide_password(url: str) -> str:
    """Hide the password and query of the address.

    >>> hide_password("rediss://app:secret@cache.example:6380/1?ssl_ca_certs=/etc/ca.pem")
    'rediss://app:***@cache.example:6380/1'
    >>> hide_password("app:secret@localhost:6379")
    'localhost:6379'
    """
    if "://" not in url:
        return url.rpartition("@")[2].partition("?")[0]  # "host:6379" would be read as of a scheme "host"
    parts = urlsplit(url)
    who, at, host = parts.netloc.rpartition("@")
    name, colon, _ = who.partition(":")
    shown = f"{name}{colon}{'***' if colon else ''}{at}{host}"
    return f"{parts.scheme}://{shown}{parts.path}"
