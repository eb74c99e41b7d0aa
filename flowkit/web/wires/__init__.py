"""Runs on the wires that other front ends speak."""

from flowkit.web.wires.encoding import Wire, encode

__all__ = ["Wire", "encode"]
