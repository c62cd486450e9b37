"""A state written down in parts and read again is the same state, and goes on the same."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from farm.errors import CannotRun
from farm.state.changes import apply, refusal
from farm.state.events import Event, JobSubmitted
from farm.state.journal import Journal
from farm.state.ledger import Recorded
from farm.state.snapshot import (
    JobPart,
    TasksPart,
    decoded,
    encoded,
    gives_farm,
    parts_of,
    restore,
    written_parts,
)
from farm.state.state import State
from tests.farm.conftest import Make
from tests.farm.state.test_old_journals import JOURNALS
from tests.farm.state.test_replay import check_consistent, random_event

make = Make()


def history(seed: int, length: int) -> list[Recorded]:
    """Events that were legal, one after the other."""
    rng, state = random.Random(seed), State()
    found: list[Recorded] = []

    def happen(event: Event) -> None:
        found.append((len(found) + 1, float(len(found)), event))
        follow(state, found[-1:])

    happen(make.joined(make.worker("w0/0"))[0])
    happen(make.submitted("job", num_frames=20))
    for number in range(length):
        event = random_event(make, rng, state, number)
        if refusal(state, event) is None:
            happen(event)
    return found


def follow(state: State, events: list[Recorded]) -> State:
    for seq, at, event in events:
        apply(state, event, at)
        job = state.jobs.get(getattr(event, "job_id", ""))
        if job is not None:
            job.last_seq = seq
            if isinstance(event, JobSubmitted):
                job.first_seq = seq
    return state


def written_and_read(state: State, events: list[Recorded]) -> State:
    submitted = {seq: event for seq, _, event in events if isinstance(event, JobSubmitted)}
    again = State()
    restore(again, map(decoded, map(encoded, parts_of(state))), lambda part: submitted[part.first_seq])
    return again


@settings(max_examples=10, deadline=None, phases=[Phase.generate])
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_whatever_happened_the_parts_and_the_rest_give_the_state_of_all(seed: int, share: float) -> None:
    events = history(seed, 80)
    cut = round(share * len(events))
    then = follow(State(), events[:cut])
    again = written_and_read(then, events)
    assert again == then
    assert list(again.jobs) == list(then.jobs)
    assert list(again.workers) == list(then.workers)
    check_consistent(again)
    assert follow(again, events[cut:]) == follow(then, events[cut:])


@pytest.mark.parametrize("path", JOURNALS, ids=lambda path: path.stem)
def test_so_do_those_of_every_kind_of_event_there_is(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "journal.sqlite")
    journal = Journal(tmp_path / "journal.sqlite")
    events = list(journal.events())
    journal.close()
    whole = follow(State(), events)
    for cut in range(len(events) + 1):
        again = written_and_read(follow(State(), events[:cut]), events)
        assert follow(again, events[cut:]) == whole


def test_a_task_to_which_nothing_happened_and_plans_take_no_room() -> None:
    few, many = (make.state([make.submitted(num_frames=n)]) for n in (18, 5003))
    sizes = [sum(len(encoded(part)) for part in parts_of(state)) for state in (few, many)]
    assert sizes[0] == sizes[1] < 300


def test_nothing_is_written_down_that_does_not_come_back_as_it_was() -> None:
    state = follow(State(), history(3, 100))
    parts = list(written_parts(state))
    assert parts == [encoded(part) for part in parts_of(state)]
    assert gives_farm(parts[0], state)
    job = next(job for job in state.jobs.values() if any(task.attempts for task in job.tasks.values()))
    job.num_done += 1  # what no history gives
    with pytest.raises(CannotRun, match=f"snapshot of job {job.id} would not give the same job"):
        list(written_parts(state))
    state.profiles.join_s = 17.0
    assert not gives_farm(parts[0], state)


def test_parts_of_no_job_and_of_another_are_refused() -> None:
    with pytest.raises(ValueError, match="tasks of no job"):
        restore(State(), [TasksPart(part="tasks", tasks=())], lambda _: make.submitted())
    part = JobPart(part="job", id="other", first_seq=1, last_seq=1, submitted_at=0.0, priority=50)
    with pytest.raises(ValueError, match="job other was submitted as job"):
        restore(State(), [part], lambda _: make.submitted())


def test_attempts_that_are_only_counted_stay_counted() -> None:
    state = make.state([*make.joined(make.worker("a/0")), make.submitted(num_frames=8)])
    for number in range(1, 30):
        make.happen(state, make.assigned("s0-0", "a/0", attempt=number))
        make.happen(state, make.failed("s0-0", "cancelled", attempt=number), now=2.5)
    assert state.jobs["job"].tasks["s0-0"].earlier is not None
    assert len(list(written_parts(state))) == 3


def test_what_is_only_watched_is_not_written_down(make: Any) -> None:
    state = make.state([*make.joined(make.worker("a/0")), make.submitted(), make.assigned("s0-0", "a/0")])
    before = [encoded(part) for part in parts_of(state)]
    attempt = state.jobs["job"].tasks["s0-0"].attempts[0]
    attempt.phase, attempt.done_fraction, attempt.heard_at = "denoise", 0.5, 1e9
    state.workers["a/0"].telemetry_at = 1e9
    state.workers["a/0"].models = {"far": 1}
    assert [encoded(part) for part in parts_of(state)] == before
