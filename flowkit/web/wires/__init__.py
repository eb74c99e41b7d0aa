"""Runs in the protocols of other front ends."""

from flowkit.web.wires.encoding import Wire, encode

__all__ = ["Wire", "encode"]
