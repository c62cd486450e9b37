"""Jobs in a list, as JSON that is made once: a page of them is asked for far more often than it changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Literal, NamedTuple

from dashboard.http import cursor_after, position_of
from farm.reporting import job_summary
from farm.state import Job, Ledger

#: What is not an event (steps, the time left) is told no more often than this.
KEPT_S = 0.25

Status = Literal["running", "succeeded", "failed", "cancelled", "ended"]


class Filter(NamedTuple):
    """Which jobs; None: all."""

    status: Status | None = None
    model: str | None = None
    #: In a prompt or the id, whatever the case.
    text: str | None = None

    def fits(self, job: Job) -> bool:
        if self.status is not None:
            ended = self.status == "ended" and job.status != "running"
            if not ended and job.status != self.status:
                return False
        if self.model is not None and job.plan.model != self.model:
            return False
        if not self.text:
            return True
        wanted = self.text.casefold()
        return wanted in job.id or any(wanted in prompt.casefold() for prompt in job.request.prompts)


class _Made(NamedTuple):
    last_seq: int
    at: float
    text: bytes


class JobSummaries:
    """The summaries of a ledger's jobs as JSON."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._made: dict[str, _Made] = {}

    def one(self, job: Job) -> bytes:
        """A job's ``JobSummary`` as JSON."""
        made, now = self._made.get(job.id), self._ledger.monotonic()
        if (
            made is not None
            and made.last_seq == job.last_seq
            and (job.status != "running" or 0 <= now - made.at < KEPT_S)
        ):
            return made.text
        summary = job_summary(job, self._ledger.state, now)
        text = json.dumps(summary, separators=(",", ":")).encode()
        self._made[job.id] = _Made(job.last_seq, now, text)
        if len(self._made) > 2 * len(self._ledger.state.jobs):
            self._forget()
        return text

    def page(self, wanted: Filter, *, newest_first: bool, limit: int, cursor: str | None) -> bytes:
        """A page of the list as JSON. A cursor names a moment: what comes and goes besides moves nothing."""
        after = None if cursor is None else position_of(cursor)
        found: list[Job] = []
        for job in self._in_order(newest_first):
            passed = after is None or (job.first_seq < after if newest_first else job.first_seq > after)
            if passed and wanted.fits(job):
                found.append(job)
                if len(found) > limit:
                    break
        shown = found[:limit]
        following = cursor_after(shown[-1].first_seq) if len(found) > limit else None
        entries = b",".join(map(self.one, shown))
        rest = f'],"next_cursor":{json.dumps(following)},"last_event_id":{self._ledger.last_seq}}}'
        return b'{"data":[' + entries + rest.encode()

    def _in_order(self, newest_first: bool) -> Iterator[Job]:
        """By submission, which is the order they came into the state in."""
        jobs = self._ledger.state.jobs.values()
        return iter(reversed(jobs) if newest_first else jobs)

    def _forget(self) -> None:
        jobs = self._ledger.state.jobs
        self._made = {job_id: made for job_id, made in self._made.items() if job_id in jobs}
