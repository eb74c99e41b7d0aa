"""The proxy that the environment puts between this process and a server."""

import os
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from flowkit.models.wire.settings import plain_url


def find_proxy(url: str) -> str | None:
    """Name the proxy that requests to this URL take, and the variable it comes from; None without one."""
    parts = urlsplit(url)
    proxies = getproxies()
    kind = parts.scheme if parts.scheme in proxies else "all"
    if kind not in proxies or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    name = f"{kind}_proxy"
    variable = next((one for one in (name, name.upper()) if os.environ.get(one)), None)
    where = "the system's settings" if variable is None else variable
    return f"the proxy {plain_url(proxies[kind])} of {where}"
