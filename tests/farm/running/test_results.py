"""What workers hand in beside frames: their logs, and how their devices are."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from farm.errors import InvalidInput
from farm.planning.render_task import RenderTask
from farm.running.storage import Storage
from farm.state.events import AttemptFailed, AttemptSucceeded
from farm.state.workers import Telemetry
from nodes.engines.engine import Report


def log_of(farm: Any, attempt_id: str) -> str:
    job_id, task_id, number = attempt_id.split("/")
    text: str = farm.storage.attempt_log_path(job_id, task_id, int(number)).read_text()
    return text


async def test_every_attempt_leaves_its_log_in_the_jobs_folder(
    run_farm: Any, photo: Any, job_request: Any, trouble: Any
) -> None:
    def fail(worker: str, task: RenderTask, report: Report) -> None:
        raise ValueError("a broken card")

    async with run_farm("a/0", engine=trouble(fail)) as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=8))
        await farm.ended(job_id)
        folder = farm.storage.job_path(job_id) / "logs"
        await farm.until(lambda: (folder / "s0-0-3.log").exists())
        failed = farm.events(AttemptFailed)
        assert len(failed) == 3, "the only worker may try again"
        assert all("a broken card" in log_of(farm, event.attempt_id) for event in failed)
    async with run_farm("b/0") as farm:
        farm.coordinator.retry(job_id)
        job = await farm.ended(job_id)
        assert job.status == "succeeded", job.reason
        (done,) = farm.events(AttemptSucceeded)
        assert "done: 8 frames" in log_of(farm, done.attempt_id)
        assert sorted(path.name for path in folder.iterdir()) == [f"s0-0-{n}.log" for n in (1, 2, 3, 4)]


async def test_a_log_that_cannot_be_written_fails_no_attempt(
    run_farm: Any, photo: Any, job_request: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with run_farm("a/0") as farm:
        job_id = "job-0123456789ab"
        (farm.storage.job_folder(job_id) / "logs").touch()  # where the folder would be
        farm.coordinator.submit(job_request(photo(), num_frames=8), job_id=job_id)
        job = await farm.ended(job_id)
        assert job.status == "succeeded", job.reason
    (said,) = [r for r in caplog.records if "is not kept" in r.message]
    assert (said.job_id, said.task_id) == (job_id, "s0-0")  # type: ignore[attr-defined]


async def test_a_log_that_comes_as_its_job_is_deleted_leaves_nothing_behind(
    run_farm: Any, photo: Any, job_request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text, begun, go_on = Storage.write_text, threading.Event(), threading.Event()

    def slowly(self: Storage, path: Path, text: str) -> None:
        begun.set()
        go_on.wait(60)
        write_text(self, path, text)

    monkeypatch.setattr(Storage, "write_text", slowly)
    async with run_farm("a/0") as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=8))
        await farm.until(begun.is_set)
        farm.coordinator.cancel(job_id)
        farm.coordinator.delete(job_id)
        await farm.until(lambda: not farm.storage.job_path(job_id).exists())
        go_on.set()
        await farm.until(lambda: not farm.coordinator._tasks)
        assert not farm.storage.job_path(job_id).exists()
        assert not farm.coordinator.blobs._held, "nor in memory"


async def test_log_records_about_an_attempt_carry_its_ids(
    run_farm: Any,
    make: Any,
    photo: Any,
    job_request: Any,
    trouble: Any,
    held: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "farm")
    async with run_farm("a/0", engine=trouble(held)) as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=8))
        await farm.until(held.begun.is_set)
        farm.cluster.kill("a/0")
        await farm.until(lambda: farm.events(AttemptFailed))
        held.go_on.set()
        farm.cluster.add(make.worker("a/0", kind="cpu"))
        assert (await farm.ended(job_id)).status == "succeeded"
    records = [r for r in caplog.records if r.name in ("farm.running.coordinator", "farm.running.results")]
    assert {r.attempt_id for r in records} == {f"{job_id}/s0-0/1", f"{job_id}/s0-0/2"}  # type: ignore[attr-defined]
    assert {r.job_id for r in records} == {job_id}  # type: ignore[attr-defined]
    assert len(records) == 4, "given, lost, given again, done"


@pytest.mark.parametrize("task_id", ["", "../s0-0", "s0-0/..", "s0", "s0-0\n"])
def test_only_a_segments_id_names_a_log(tmp_path: Path, task_id: str) -> None:
    with pytest.raises(InvalidInput, match="is not a segment's id"):
        Storage(tmp_path).attempt_log_path("job-0123456789ab", task_id, 1)


async def test_how_a_device_is_is_known_of_workers_that_are_here_and_kept_nowhere(
    run_farm: Any,
) -> None:
    async with run_farm("a/0", clock=lambda: 7.0) as farm:
        await farm.until(lambda: farm.ledger.state.workers)
        worker = farm.ledger.state.workers["a/0"]
        seen = len(farm.events(object))
        for worker_id in ("x/0", "a/0"):
            farm.cluster._messages.put_nowait(Telemetry(worker_id=worker_id, load=0.25))
        await farm.until(lambda: worker.telemetry)
        assert (worker.telemetry.load, worker.telemetry_at) == (0.25, 7.0)
        assert len(farm.events(object)) == seen


async def test_sequence_numbers_and_ends_of_attempts_are_right_after_a_replay_too(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    async with run_farm("a/0") as farm:
        job = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=13)))
        other = farm.coordinator.submit(job_request(photo(), num_frames=8))
        farm.coordinator.cancel(other)
        last = [(seq, at, event) for seq, at, event in farm.ledger.journal.events(job_id=job.id)]
        assert job.first_seq == last[0][0]
        assert job.last_seq == last[-1][0]
        assert job.last_seq < farm.ledger.last_seq == list(farm.ledger.journal.events())[-1][0]
        ends = {e.attempt_id: at for _, at, e in last if isinstance(e, AttemptSucceeded)}
        ended = {a.id: a.ended_at for t in job.tasks.values() for a in t.attempts}
        assert ended == ends
    async with run_farm() as farm:
        again = farm.ledger.job(job.id)
        assert (again.first_seq, again.last_seq) == (job.first_seq, job.last_seq)
        assert {a.id: a.ended_at for t in again.tasks.values() for a in t.attempts} == ends
        assert farm.ledger.last_seq == list(farm.ledger.journal.events())[-1][0]
