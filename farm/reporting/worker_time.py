"""What every worker did while a job ran, second by second: at work, or why not. A pure function of events.

An attempt tells how long each of its phases took; what lies between them and the farm's own clock was the
order's or the result's way. Between attempts the job says why: what is left of it, and whether that could
begin.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, TypeAlias, get_args

from farm.state import (
    AttemptFailed,
    AttemptSucceeded,
    Event,
    JobCancelled,
    JobFailed,
    JobPublished,
    JobReopened,
    JobSubmitted,
    KeyframeReplaced,
    KeyframesReady,
    KeyframesRemade,
    ReviewApproved,
    TaskAssigned,
    TaskReopened,
    WorkerJoined,
    WorkerLeft,
)

Idle: TypeAlias = Literal[
    "starting",  # its process was not up yet, or had ended
    "loading",  # a model was brought onto the device, imports included
    "transfer",  # an order or a result was on its way, or a result was packed, and nothing else was at work
    "dependency",  # what is left waited for what others rendered
    "passed over",  # something could begin, and was given to others, or to none
    "review",  # the job waited for its user
    "nothing left",  # everything else was rendered or being rendered
    "publishing",  # every segment was rendered, and the video was not whole yet
]
Doing: TypeAlias = (
    Literal[
        "working",
        "withdrawn",  # at an attempt that was taken back: another copy was first, the job or the farm ended
        "failed",
    ]
    | Idle
)
#: Of what overlaps in one worker, the first counts.
_ORDER: tuple[Doing, ...] = ("working", "withdrawn", "failed", "loading", "transfer")
IDLE: tuple[Idle, ...] = get_args(Idle)


@dataclass(frozen=True)
class Span:
    """Between two moments, in seconds since the epoch."""

    begin: float
    end: float
    doing: Doing
    #: What it worked at; empty where it was idle.
    attempt_id: str = ""

    @property
    def seconds(self) -> float:
        return self.end - self.begin


def worker_spans(events: Iterable[tuple[int, float, Event]], job_id: str) -> dict[str, list[Span]]:
    """By worker, what it did from the job's first submission to its end (or the newest event), without gaps.

    Args:
        events: (sequence number, time, event), in order: the farm's, or the job's with those of the workers.
        job_id: The job that is asked about. What a worker did for another job counts as not given to it.
    """
    story = _Story(job_id)
    for _, at, event in events:
        story.hear(at, event)
    story.end_open("working")
    return {worker_id: list(story.spans(worker_id)) for worker_id in sorted(story.used)}


def idle_s(spans: Iterable[Span]) -> dict[Idle, float]:
    """Seconds by cause, those without any left out."""
    found: defaultdict[Idle, float] = defaultdict(float)
    for span in spans:
        if span.doing in IDLE:
            found[span.doing] += span.seconds
    return {cause: found[cause] for cause in IDLE if found[cause] > 0}


def add_idle(report: dict[str, Any], events: Iterable[tuple[int, float, Event]]) -> None:
    """Say in a job's report (``job_report``) of every worker how long it was idle, by cause."""
    for worker_id, spans in worker_spans(events, report["id"]).items():
        if worker_id in report["workers"]:
            report["workers"][worker_id]["idle_s"] = idle_s(spans)


def idle_share(spans: Mapping[str, Sequence[Span]]) -> float:
    """Share of the workers' time between the job's first and last rendered frame that was not work."""
    work = [span for each in spans.values() for span in each if span.doing == "working"]
    if not work:
        return 0.0
    begin, end = min(span.begin for span in work), max(span.end for span in work)
    return 1.0 - sum(span.seconds for span in work) / ((end - begin) * len(spans))


@dataclass
class _Story:
    """A job's events as they are heard."""

    job_id: str
    begin: float | None = None
    end: float = 0.0
    #: Workers that attempts of the job were given to, and what they did in them.
    used: dict[str, list[Span]] = field(default_factory=dict)
    #: By worker, when its process came and went.
    _here: defaultdict[str, list[tuple[float, bool]]] = field(default_factory=lambda: defaultdict(list))
    _given: dict[str, tuple[str, str, float]] = field(default_factory=dict)
    _waits_for: dict[str, set[str]] = field(default_factory=dict)
    _dependents: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _done: set[str] = field(default_factory=set)
    _running: Counter[str] = field(default_factory=Counter)
    #: Tasks that could begin now, and those that could not.
    _ready: set[str] = field(default_factory=set)
    _blocked: set[str] = field(default_factory=set)
    _reviewed: bool = False
    #: From when on a worker without an attempt was idle for that cause.
    _causes: list[tuple[float, Idle]] = field(default_factory=list)

    def hear(self, at: float, event: Event) -> None:
        match event:
            case WorkerJoined(worker=worker):
                self._here[worker.id].append((at, True))
                return
            case WorkerLeft(worker_id=worker_id):
                self._here[worker_id].append((at, False))
                return
        if getattr(event, "job_id", None) != self.job_id:
            return
        if isinstance(event, JobSubmitted):
            self._submitted(at, event)
        if self.begin is None:
            return
        self.end = at
        match event:
            case TaskAssigned():
                self._given[event.attempt_id] = (event.worker_id, event.task_id, at)
                self._running[event.task_id] += 1
                self._look(event.task_id)
            case AttemptSucceeded() | AttemptFailed() if event.attempt_id in self._given:
                self._ended(at, event)
            case TaskReopened(task_id=task_id):
                self._again([task_id])
            case JobReopened(takes=takes) | KeyframesRemade(takes=takes) | KeyframeReplaced(takes=takes):
                self._again(takes)
                self._reviewed = False
            case KeyframesReady():
                self._reviewed = True
            case ReviewApproved():
                self._reviewed = False
        self._causes.append((at, self._cause()))
        if isinstance(event, JobPublished | JobFailed | JobCancelled):
            self.end_open("withdrawn")

    def end_open(self, doing: Doing) -> None:
        """Attempts that did not end until now."""
        for attempt_id in list(self._given):
            self._close(attempt_id, self.end, doing)

    def spans(self, worker_id: str) -> Iterator[Span]:
        """What a worker did, from begin to end."""
        assert self.begin is not None, "a worker is used once there is a job"
        own, here = self.used[worker_id], self._here[worker_id]
        moments = {self.begin, self.end, *(at for at, _ in here), *(at for at, _ in self._causes)}
        moments |= {moment for span in own for moment in (span.begin, span.end)}
        within = sorted(moment for moment in moments if self.begin <= moment <= self.end)
        last: Span | None = None
        for begin, end in pairwise(within):
            span = self._span(begin, end, own, here)
            if last is not None and (last.doing, last.attempt_id) == (span.doing, span.attempt_id):
                last = Span(last.begin, span.end, span.doing, span.attempt_id)
                continue
            if last is not None:
                yield last
            last = span
        if last is not None:
            yield last

    def _span(
        self, begin: float, end: float, own: Sequence[Span], here: Sequence[tuple[float, bool]]
    ) -> Span:
        inside = [span for span in own if span.begin <= begin and end <= span.end]
        if inside:
            first = min(inside, key=lambda span: (_ORDER.index(span.doing), span.begin))
            return Span(begin, end, first.doing, first.attempt_id)
        place = bisect_right(here, (begin, True))
        if not (here[place - 1][1] if place else not here):
            return Span(begin, end, "starting")
        return Span(begin, end, self._causes[max(0, bisect_right(self._causes, (begin, "~")) - 1)][1])

    def _submitted(self, at: float, event: JobSubmitted) -> None:
        self.begin = at
        for segment in event.plan.segments:
            self._waits_for[segment.id] = set(segment.depends_on)
            for other in segment.depends_on:
                self._dependents[other].append(segment.id)
        for task_id in self._waits_for:
            self._look(task_id)

    def _look(self, task_id: str) -> None:
        """Whether a task could begin has changed, perhaps."""
        self._ready.discard(task_id)
        self._blocked.discard(task_id)
        if task_id not in self._done and not self._running[task_id]:
            (self._blocked if self._waits_for[task_id] else self._ready).add(task_id)

    def _again(self, task_ids: Iterable[str]) -> None:
        for task_id in task_ids:
            self._done.discard(task_id)
            for dependent in self._dependents[task_id]:
                self._waits_for[dependent].add(task_id)
                self._look(dependent)
            self._look(task_id)

    def _ended(self, at: float, event: AttemptSucceeded | AttemptFailed) -> None:
        task_id = self._given[event.attempt_id][1]
        if isinstance(event, AttemptSucceeded):
            self._done.add(task_id)
            for dependent in self._dependents[task_id]:
                self._waits_for[dependent].discard(task_id)
                self._look(dependent)
            load_s = event.phases_s.get("load", event.load_s)
            self._close(
                event.attempt_id,
                at,
                "working",
                load_s=load_s,
                busy_s=event.wall_s - event.phases_s.get("transfer", 0.0),
            )
        else:
            taken_back = event.kind in ("cancelled", "coordinator_restart")
            self._close(event.attempt_id, at, "withdrawn" if taken_back else "failed")
        self._running[task_id] -= 1
        self._look(task_id)

    def _close(
        self, attempt_id: str, at: float, doing: Doing, *, load_s: float = 0.0, busy_s: float | None = None
    ) -> None:
        """An attempt that took ``busy_s``, ``load_s`` of it first; then its result was packed and brought."""
        worker_id, _, given = self._given.pop(attempt_id)
        loaded = min(given + load_s, at)
        rendered = at if busy_s is None else min(given + max(busy_s, load_s), at)
        parts: tuple[tuple[float, float, Doing], ...] = (
            (given, loaded, "loading"),
            (loaded, rendered, doing),
            (rendered, at, "transfer"),
        )
        spans = (Span(begin, end, what, attempt_id) for begin, end, what in parts)
        self.used.setdefault(worker_id, []).extend(span for span in spans if span.seconds > 0)

    def _cause(self) -> Idle:
        if self._reviewed:
            return "review"
        if self._ready:
            return "passed over"
        if self._blocked:
            return "dependency"
        return "nothing left" if any(self._running.values()) else "publishing"
