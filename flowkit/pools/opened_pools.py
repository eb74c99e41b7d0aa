"""The pools of this process: each opened at its first use, shared by every run, closed when the process ends."""

import atexit
import os
from threading import Lock

from flowkit.errors import ConfigurationError
from flowkit.pools.cluster import DaskPool
from flowkit.pools.performing import refuse_while_loading
from flowkit.pools.processes import ProcessPool
from flowkit.pools.windows import find_size

DASK_VARIABLE = "FLOWKIT_DASK"

_lock = Lock()
_processes: ProcessPool | None = None
_clusters: dict[str, DaskPool] = {}


def open_processes() -> ProcessPool:
    """Return the pool of this machine; raises `ConfigurationError` in a process of it that only imports a module."""
    global _processes
    refuse_while_loading()
    with _lock:
        if _processes is None:
            _processes = ProcessPool(find_size())
        return _processes


def open_cluster() -> DaskPool:
    """Return the pool at the address in `FLOWKIT_DASK`; raises `ConfigurationError` when there is none."""
    refuse_while_loading()
    address = os.environ.get(DASK_VARIABLE)
    if not address:
        raise ConfigurationError(
            f"pool='dask' needs the address of a scheduler: set {DASK_VARIABLE}, such as tcp://127.0.0.1:8786"
        )
    with _lock:
        if address not in _clusters:
            _clusters[address] = DaskPool(address)
        return _clusters[address]


def close_pools() -> None:
    """Close every pool of this process; the next call reopens them."""
    global _processes
    with _lock:
        processes, clusters = _processes, list(_clusters.values())
        _processes = None
        _clusters.clear()
    if processes is not None:
        processes.close()
    for cluster in clusters:
        cluster.close()


def _forget() -> None:
    """Forget the pools in a fork: their threads weren't copied, and their processes are the parent's."""
    global _processes, _lock
    _lock = Lock()
    _processes = None
    _clusters.clear()


atexit.register(close_pools)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
