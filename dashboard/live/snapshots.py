"""How jobs and workers look between events: computed once for all watchers, seven times a second at most."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Literal

from dashboard.live.event_stream import message
from dashboard.live.worker_summaries import WorkerSummary, summaries_of
from farm.reporting import job_summary
from farm.state import Event, Ledger

#: The least time between two snapshots of one subject.
INTERVAL_S = 0.15
#: Why a worker idles and what a job waits for change with the whole farm: looked at again this often.
IDLE_INTERVAL_S = 1.0
#: Workers are looked for changes at once, and this long later for each of them: a second of 10,000.
LOOK_S = 1e-4
#: Snapshots of one turn; what is over waits for the next.
PER_TURN = 100
#: And no more of them than this takes: on a large farm a job is foretold in a tenth of a second.
TURN_S = 0.1

#: ("job" or "worker", its id)
Subject = tuple[Literal["job", "worker"], str]


class Snapshots:
    """``job``, ``worker`` and ``worker_gone`` messages for what has changed since they were last said."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        #: Waiting to be said, in the order they changed.
        self._changed: dict[Subject, None] = {}
        self._said_at: dict[Subject, float] = {}
        #: The newest message of every worker and of every job that has not ended.
        self._said: dict[Subject, bytes] = {}
        self._looks: dict[str, tuple[Any, ...]] = {}
        self._idle_at = 0.0
        self._looked_at = 0.0
        self._happened = False
        for job in ledger.state.jobs.values():
            if job.status == "running":
                self._changed["job", job.id] = None

    def note(self, event: Event) -> None:
        """An event happened; the state has it already."""
        self._happened = True
        job_id = getattr(event, "job_id", None)
        if job_id is not None:
            self._changed["job", job_id] = None

    def show_again(self, job_ids: Iterable[str | None]) -> None:
        """Somebody hears only now what happened to these jobs, and has not seen how they ended."""
        self._changed |= {("job", job_id): None for job_id in job_ids if job_id in self._ledger.state.jobs}

    def due(self, now: float) -> list[tuple[Subject, bytes]]:
        """The messages to be sent now; ``now`` in seconds of any steady clock."""
        if now - self._looked_at >= len(self._looks) * LOOK_S:
            self._looked_at = now
            self._look_at_workers(now)
        gone = [s for s in self._said if s[0] == "worker" and s[1] not in self._looks]
        for subject in gone:
            self._forget(subject)
        told = [(s, message("worker_gone", _json({"id": s[1]}))) for s in gone]
        ready = (s for s in self._changed if now - self._said_at.get(s, 0.0) >= INTERVAL_S)
        chosen = list(islice(ready, PER_TURN))
        named = [name for kind, name in chosen if kind == "worker"]
        summaries = summaries_of(self._ledger.state, named) if named else []
        workers: dict[str, WorkerSummary] = {summary["id"]: summary for summary in summaries}
        began = time.monotonic()
        for subject in chosen:
            if time.monotonic() - began > TURN_S:
                break
            del self._changed[subject]
            said = self._message(subject, workers)
            if said is None:
                self._forget(subject)
            elif said != self._said.get(subject):
                self._said[subject], self._said_at[subject] = said, now
                told.append((subject, said))
                if subject[0] == "job" and self._ledger.state.jobs[subject[1]].status != "running":
                    self._forget(subject)
        return told

    def newest(self) -> Iterator[tuple[Subject, bytes]]:
        """What everything that lives looked like when it was last said."""
        yield from self._said.items()

    def _look_at_workers(self, now: float) -> None:
        """Find the workers that changed, by a look that costs next to nothing."""
        state = self._ledger.state
        again = self._happened and now - self._idle_at >= IDLE_INTERVAL_S
        if again:
            self._happened, self._idle_at = False, now
            waiting = (j for j in state.jobs.values() if j.status == "running" and not j.num_running)
            self._changed |= {("job", job.id): None for job in waiting}
        looks: dict[str, tuple[Any, ...]] = {}
        for worker_id, worker in state.workers.items():
            running = [(a.id, a.phase, a.done_fraction) for _, _, a in state.running_on(worker)]
            look = (
                worker.worker,
                worker.draining,
                worker.warm_model,
                worker.models,
                worker.telemetry_at,
                *running,
            )
            looks[worker_id] = look
            if look != self._looks.get(worker_id):
                for job_id, _ in worker.attempts.values():
                    self._changed["job", job_id] = None
                self._changed["worker", worker_id] = None
            elif again and not running:
                self._changed["worker", worker_id] = None
        off = {worker_id: (worker, "drained") for worker_id, worker in state.drained.items()}
        off |= {worker_id: (worker, "starting") for worker_id, worker in state.starting.items()}
        for worker_id, look in off.items():
            looks[worker_id] = look
            if self._looks.get(worker_id) != look:
                self._changed["worker", worker_id] = None
        self._looks = looks

    def _message(self, subject: Subject, workers: Mapping[str, WorkerSummary]) -> bytes | None:
        """How it looks now; None when it is gone."""
        state = self._ledger.state
        kind, name = subject
        if kind == "job":
            job = state.jobs.get(name)
            return (
                None
                if job is None
                else message("job", _json(job_summary(job, state, self._ledger.monotonic())))
            )
        worker = workers.get(name)
        return None if worker is None else message("worker", _json(worker))

    def _forget(self, subject: Subject) -> None:
        self._said.pop(subject, None)
        self._said_at.pop(subject, None)


def _json(values: Any) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode()
