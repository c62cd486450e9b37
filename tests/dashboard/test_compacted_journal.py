"""Whoever asks is told the same of a job after the journal has left its story to its folder."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from farm.keeping import compaction
from farm.keeping.compactor import frames

ASKED = (
    "",
    "/report",
    "/segments",
    "/seams",
    "/segments/s0-1/log",
    "/events",
    "/events?after=4",
)


async def made_here(*asked: Any) -> AsyncGenerator[tuple[bytes, bytes], None]:
    for frame in frames(*asked):
        yield frame


async def answers(farm: Any, job_id: str) -> dict[str, str]:
    found = {}
    for what in ASKED:
        answer = await farm.http.get(f"/api/v1/jobs/{job_id}{what}")
        assert answer.status_code == 200, what
        found[what] = answer.text
    return found


async def test_a_job_is_told_as_before(farm: Any, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "RECENT_EVENTS", 0)
    ledger, storage = farm.coordinator.ledger, farm.coordinator.storage
    job_id = await farm.finished_job(photo)
    again = await farm.http.post(f"/api/v1/jobs/{job_id}/rerender", json={"start": 0, "end": 1})
    assert again.status_code == 200, again.text
    await farm.until_ended(job_id)
    await farm.until(lambda: not farm.coordinator.joiners.open)
    before = await answers(farm, job_id)
    assert "attempt 1 is done" in before["/segments/s0-1/log"]
    assert before["/events"].startswith("id: ")
    assert before["/events"].endswith('data: {"type": "end", "status": "succeeded"}\n\n')
    await compaction.compact(ledger, storage, made_here)
    assert len(list(ledger.journal.events(job_id=job_id))) == 2
    after = await answers(farm, job_id)
    for what in ASKED:
        assert after[what] == before[what], what
    assert (await farm.http.delete(f"/api/v1/jobs/{job_id}")).status_code == 204
    await compaction.compact(ledger, storage, made_here)
    assert [event.type for _, _, event in ledger.journal.events(job_id=job_id)] == ["job_deleted"]
    params = {"after": f"video_{job_id.removeprefix('job-')}"}
    assert "was deleted long ago" in (await farm.http.get("/v1/videos", params=params)).text


async def test_events_that_a_webhook_still_waits_for_stay(
    farm: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "RECENT_EVENTS", 0)
    ledger, storage = farm.coordinator.ledger, farm.coordinator.storage
    hook = {"url": "http://192.0.2.1:9/", "events": ["seam_measured"]}
    assert (await farm.http.post("/api/v1/webhooks", json=hook)).status_code == 201
    nothing = await ledger.read_up_to(ledger.last_seq)
    assert nothing == ledger.last_seq, "it waits for nothing that has happened"
    await farm.finished_job(photo)
    await compaction.compact(ledger, storage, made_here)
    (first, *_) = (seq for seq, _, event in ledger.journal.events() if event.type == "seam_measured")
    assert ledger.journal.kept_from == first - 1
