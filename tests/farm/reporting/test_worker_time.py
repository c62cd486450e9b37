"""Every second of a worker has a cause: what it worked at, or why it did not."""

from __future__ import annotations

from typing import Any

import pytest

from farm.reporting.worker_time import Span, add_idle, idle_s, idle_share, worker_spans
from farm.state.events import JobPublished, KeyframesReady, ReviewApproved, TaskReopened, WorkerLeft

PUBLISHED = JobPublished(job_id="job", num_frames=13, frames_sha256="0" * 64, size_bytes=500, stitch_s=1.5)


@pytest.fixture
def spans(make: Any) -> Any:
    """``spans((at, event), ...)``: of a job of two segments, submitted at 100, and workers here since 90."""

    def told(*events: tuple[float, Any], spec: Any = None) -> dict[str, list[Span]]:
        joined = make.joined(make.worker("big/0"), make.worker("small/0"))
        submitted = make.submitted(spec=spec, num_frames=13, window_frames=8, overlap_frames=3)
        story = [*((90.0, event) for event in joined), (100.0, submitted), *events]
        return worker_spans([(n, at, event) for n, (at, event) in enumerate(story)], "job")

    return told


def told(spans: list[Span]) -> list[tuple[float, float, str]]:
    return [(span.begin, span.end, span.doing) for span in spans]


def test_an_attempt_is_loading_then_work_then_a_result_on_its_way(make: Any, spans: Any) -> None:
    phases = {"load": 2.0, "denoise": 5.0, "transfer": 1.0}
    found = spans(
        (101.0, make.assigned("s0-0", "big/0")),
        (110.0, make.succeeded("s0-0", wall_s=8.0, load_s=2.0, phases_s=phases)),
    )
    assert told(found["big/0"]) == [
        (100.0, 101.0, "passed over"),
        (101.0, 103.0, "loading"),
        (103.0, 108.0, "working"),
        (108.0, 110.0, "transfer"),
    ]
    assert idle_s(found["big/0"]) == {"loading": 2.0, "transfer": 2.0, "passed over": 1.0}


def test_a_worker_that_packs_one_segment_and_renders_the_next_works(make: Any, spans: Any) -> None:
    found = spans(
        (100.0, make.assigned("s0-0", "big/0")),
        (105.0, make.assigned("s0-1", "big/0")),
        (107.0, make.succeeded("s0-0", wall_s=7.0, load_s=0.0, phases_s={"denoise": 5.0, "transfer": 2.0})),
        (110.0, make.succeeded("s0-1", wall_s=5.0, load_s=0.0, phases_s={"denoise": 5.0})),
    )
    assert told(found["big/0"]) == [(100.0, 105.0, "working"), (105.0, 110.0, "working")]
    assert idle_share(found) == 0.0


def test_nothing_left_is_told_from_waiting_for_what_others_render(make: Any, spans: Any) -> None:
    chain = make.spec()  # one segment after the other
    found = spans(
        (100.0, make.assigned("s0-0", "big/0")),
        (105.0, make.succeeded("s0-0", wall_s=5.0, load_s=0.0)),
        (105.0, make.assigned("s0-1", "small/0")),
        (110.0, make.succeeded("s0-1", wall_s=5.0, load_s=0.0)),
        (112.0, PUBLISHED),
        spec=chain,
    )
    assert told(found["small/0"]) == [
        (100.0, 105.0, "dependency"),
        (105.0, 110.0, "working"),
        (110.0, 112.0, "publishing"),
    ]
    assert told(found["big/0"]) == [
        (100.0, 105.0, "working"),
        (105.0, 110.0, "nothing left"),
        (110.0, 112.0, "publishing"),
    ]
    assert idle_share(found) == 0.5


def test_a_segment_that_is_wanted_again_is_not_nothing(make: Any, spans: Any) -> None:
    found = spans(
        (100.0, make.assigned("s0-0", "big/0")),
        (100.0, make.assigned("s0-1", "small/0")),
        (104.0, make.succeeded("s0-0", wall_s=4.0, load_s=0.0)),
        (106.0, TaskReopened(job_id="job", task_id="s0-0", take=1, reason="its seam")),
        (107.0, make.assigned("s0-0", "big/0", attempt=2)),
        (109.0, make.succeeded("s0-0", attempt=2, wall_s=2.0, load_s=0.0)),
    )
    assert told(found["big/0"]) == [
        (100.0, 104.0, "working"),
        (104.0, 106.0, "nothing left"),
        (106.0, 107.0, "passed over"),
        (107.0, 109.0, "working"),
    ]


def test_a_worker_that_ended_is_starting_until_it_is_back(make: Any, spans: Any) -> None:
    found = spans(
        (100.0, make.assigned("s0-0", "big/0")),
        (103.0, WorkerLeft(worker_id="big/0", reason="died")),
        (103.0, make.failed("s0-0", "lost")),
        (108.0, make.joined(make.worker("big/0"))[0]),
        (108.0, make.assigned("s0-0", "big/0", attempt=2)),
        (110.0, make.succeeded("s0-0", attempt=2, wall_s=2.0, load_s=0.0)),
    )
    assert [(end - begin, doing) for begin, end, doing in told(found["big/0"])] == [
        (3.0, "failed"),
        (5.0, "starting"),
        (2.0, "working"),
    ]


def test_a_copy_that_was_taken_back_is_neither_work_nor_a_failure(make: Any, spans: Any) -> None:
    found = spans(
        (100.0, make.assigned("s0-0", "big/0")),
        (102.0, make.assigned("s0-0", "small/0", attempt=2)),
        (104.0, make.succeeded("s0-0", wall_s=4.0, load_s=0.0)),
        (104.0, make.failed("s0-0", "cancelled", attempt=2)),
    )
    assert told(found["small/0"])[1:] == [(102.0, 104.0, "withdrawn")]


def test_a_review_is_nobodys_idleness(make: Any, spans: Any) -> None:
    found = spans(
        (100.0, KeyframesReady(job_id="job")),
        (160.0, ReviewApproved(job_id="job")),
        (161.0, make.assigned("s0-0", "big/0")),
        (165.0, make.succeeded("s0-0", wall_s=4.0, load_s=0.0)),
    )
    assert idle_s(found["big/0"]) == {"passed over": 1.0, "review": 60.0}


def test_what_an_older_farm_has_written_has_no_phases_and_its_loading_is_known(make: Any, spans: Any) -> None:
    found = spans(
        (100.0, make.assigned("s0-0", "big/0")),
        (110.0, make.succeeded("s0-0", wall_s=9.0, load_s=3.0)),
    )
    assert idle_s(found["big/0"]) == {"loading": 3.0, "transfer": 1.0}


def test_an_attempt_that_still_runs_is_work_until_the_newest_event(make: Any, spans: Any) -> None:
    found = spans((100.0, make.assigned("s0-0", "big/0")), (104.0, make.assigned("s0-1", "small/0")))
    assert told(found["big/0"]) == [(100.0, 104.0, "working")]


def test_a_report_is_told_of_the_workers_it_knows(make: Any) -> None:
    events = [
        make.submitted(),
        make.assigned("s0-0", "big/0"),
        make.succeeded("s0-0", wall_s=1.0, load_s=1.0),
    ]
    report = {"id": "job", "workers": {"big/0": {"segments": 1}}}
    add_idle(report, [(number, 100.0 + number, event) for number, event in enumerate(events)])
    assert report["workers"]["big/0"] == {"segments": 1, "idle_s": {"loading": 1.0, "passed over": 1.0}}
