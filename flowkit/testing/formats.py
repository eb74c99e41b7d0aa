"""Texts of the formats that JSON Schema and pydantic name."""

import base64
from collections.abc import Mapping
from datetime import timedelta, timezone

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy


def _duration(seconds: int) -> str:
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    days, rest = divmod(seconds, 86_400)
    return f"{sign}P{days}DT{rest}S"


_ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))

FORMATS: Mapping[str, SearchStrategy[str]] = {
    "date": st.dates().map(lambda value: value.isoformat()),
    "time": st.times(timezones=_ZONES).map(lambda value: value.isoformat()),
    "date-time": st.datetimes(timezones=_ZONES).map(lambda value: value.isoformat()),
    "duration": st.integers(-(10**9), 10**9).map(_duration),
    "uuid": st.uuids().map(str),
    "uuid1": st.uuids(version=1).map(str),
    "uuid3": st.uuids(version=3).map(str),
    "uuid4": st.uuids(version=4).map(str),
    "uuid5": st.uuids(version=5).map(str),
    "email": st.from_regex(r"[a-z][a-z0-9]{0,8}@[a-z]{1,8}\.(com|org)", fullmatch=True),
    "hostname": st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,8}){0,2}", fullmatch=True),
    "uri": st.from_regex(r"https?://[a-z]{1,8}\.(com|org)/[a-z0-9/]{0,8}", fullmatch=True),
    "ipv4": st.ip_addresses(v=4).map(str),
    "ipv6": st.ip_addresses(v=6).map(str),
    "ipv4network": st.ip_addresses(v=4).map(lambda address: f"{address}/32"),
    "ipv6network": st.ip_addresses(v=6).map(lambda address: f"{address}/128"),
    "regex": st.sampled_from(["", "a+", "[0-9]{2,}", "(x|y)?", r"\d\w"]),
    "path": st.from_regex(r"[a-z0-9_./ -]{1,20}", fullmatch=True),
    "json-pointer": st.from_regex(r"(/[a-z0-9]{1,5}){0,3}", fullmatch=True),
    "base64": st.binary(max_size=15).map(lambda data: base64.b64encode(data).decode()),
    "base64url": st.binary(max_size=15).map(lambda data: base64.urlsafe_b64encode(data).decode()),
    "byte": st.binary(max_size=15).map(lambda data: base64.b64encode(data).decode()),
}
