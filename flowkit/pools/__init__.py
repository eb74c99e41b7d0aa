"""Run the functions of tools in other processes: on this machine, and on a Dask cluster.

What goes there is an address and JSON (`calls`), and what comes back is JSON; no function and no object travels. The
same code does a call at the other end of both pools (`performing`). A `PoolJob` is what a call in a pool is here.
Nothing in this package decides whether a call runs: the executor claims, retries and records.
"""
