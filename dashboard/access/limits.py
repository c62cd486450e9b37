"""How often and how much one caller may ask: token buckets, caps of bodies read whole and of open streams."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

from dashboard.access.decisions import SAFE_METHODS, area
from farm.errors import TooManyRequests

Class = Literal["read", "change", "submit", "login", "login_of_all", "refusal"]

#: Of a body that is parsed as a whole; where an input may come in it as a data URL, it is longer.
MAX_JSON_BYTES = 1 << 20
MAX_JSON_WITH_INPUTS_BYTES = 32 << 20
#: Take files in multipart forms, which they count themselves and never hold as a whole.
_TAKES_FILES = frozenset(
    {"/api/v1/jobs", "/api/v1/plans", "/api/v1/uploads", "/v1/videos", "/v1/videos/edits"}
)
#: So does the picture that stands for a keyframe.
_TAKES_PICTURE = re.compile(r"/api/v1/jobs/[^/]+/keyframes/[^/]+/picture")
#: POST to them starts work that lasts, or fills the disk.
_STARTS_WORK = frozenset({"/api/v1/jobs", "/api/v1/uploads"})
#: Callers that are remembered; a bucket that has filled up again is forgotten first.
MAX_BUCKETS = 10_000
#: Event streams that are open at a time, of one caller and of all: each holds a connection for good, and a
#: process has some 1,000.
MAX_STREAMS_OF_ONE = 300
MAX_STREAMS = 600
_STREAM = re.compile(r"/api/v1/events|/api/v1/jobs/[^/]+/events")


@dataclass(frozen=True)
class Rate:
    """So many a second in the long run, and ``burst`` at once."""

    per_s: float
    burst: float


@dataclass(frozen=True)
class Limits:
    """Of one caller: a principal, or an address that has not said who it is."""

    read: Rate = Rate(400, 800)
    change: Rate = Rate(20, 40)
    submit: Rate = Rate(2, 30)
    login: Rate = Rate(1 / 5, 5)
    #: Refusals that are written to the audit log; more are not, so that nobody can flood it.
    refusal: Rate = Rate(1, 20)
    #: Of all callers together: who has many addresses tries no more keys than that.
    login_of_all: Rate = Rate(2, 50)
    #: How long nothing of a body may come before it is given up: a connection that was lost says nothing.
    body_silence_s: float = 30.0
    #: How fast a body must come in the long run, in bytes a second, once it was waited for that long besides.
    body_pace: float = 16 << 10


class Bucket(NamedTuple):
    level: float
    #: When it had that level, in seconds of a clock that never goes back.
    at: float


def take(bucket: Bucket | None, rate: Rate, now: float, cost: float = 1.0) -> tuple[Bucket, float]:
    """Take ``cost`` out of a bucket; None is a full one.

    Returns:
        The bucket afterwards, and the seconds after which it would have been enough: 0 when it was. A bucket
        that held too little is left as it was.
    """
    level = rate.burst if bucket is None else min(rate.burst, bucket.level + (now - bucket.at) * rate.per_s)
    if level >= cost:
        return Bucket(level - cost, now), 0.0
    return Bucket(level, now), (cost - level) / rate.per_s


class Buckets:
    """The buckets of all callers."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buckets: dict[tuple[str, Class], Bucket] = {}

    def wait_s(self, who: str, what: Class, now: float) -> float:
        """Count a request; returns the seconds to wait instead, 0 when it may be answered."""
        rate: Rate = getattr(self._limits, what)
        self._buckets[who, what], wait_s = take(self._buckets.get((who, what)), rate, now)
        if len(self._buckets) > MAX_BUCKETS:
            self._forget(now)
        return wait_s

    def _forget(self, now: float) -> None:
        """Drop what is full, and where that is too little, what was not used for longest."""

        def full(what: Class, bucket: Bucket) -> bool:
            rate: Rate = getattr(self._limits, what)
            return take(bucket, rate, now, 0.0)[0].level >= rate.burst

        left = [(key, bucket) for key, bucket in self._buckets.items() if not full(key[1], bucket)]
        left.sort(key=lambda entry: entry[1].at)
        self._buckets = dict(left[-MAX_BUCKETS // 2 :])


class Streams:
    """Counts the event streams that are open."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @contextmanager
    def one_more(self, who: str) -> Iterator[None]:
        """A stream of this caller, open until the block ends.

        Raises:
            TooManyRequests: there are too many already.
        """
        for num_open, most, whose in (
            (self._open[who], MAX_STREAMS_OF_ONE, "you have"),
            (self._open.total(), MAX_STREAMS, "there are"),
        ):
            if num_open >= most:
                raise TooManyRequests(
                    f"{whose} {most} event streams open, the most there can be; close one, and try again",
                    retry_after_s=10.0,
                )
        self._open[who] += 1
        try:
            yield
        finally:
            self._open[who] -= 1
            if not self._open[who]:
                del self._open[who]


def is_stream(method: str, path: str) -> bool:
    """Whether a request is answered with events that do not end by themselves."""
    return method == "GET" and _STREAM.fullmatch(path) is not None


def rate_class(method: str, path: str) -> Class | None:
    """Which limit a request counts against; None: none, it costs no more than to say so."""
    if method in SAFE_METHODS:
        return None if area(path) == "/static" else "read"
    if path == "/api/v1/session" and method == "POST":
        return "login"
    if method == "PUT" and _TAKES_PICTURE.fullmatch(path):
        return "submit"
    if path in _STARTS_WORK or area(path) == "/v1/videos":
        return "change" if method == "DELETE" else "submit"
    return "change"


def body_cap(path: str, content_type: str) -> int | None:
    """Most bytes of a body; None: whoever takes it counts."""
    if path not in _TAKES_FILES and not _TAKES_PICTURE.fullmatch(path):
        return MAX_JSON_BYTES
    return None if content_type == "multipart/form-data" else MAX_JSON_WITH_INPUTS_BYTES


def caller(address: str) -> str:
    """What stands for an address: of IPv6 the half that a household has, for it has all of the other."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))
