"""The list of jobs: filters, order, and pages that hold together while jobs come and go."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from dashboard.http.queries import cursor_after


@pytest.fixture
async def idle(start_farm: Any) -> Any:
    """A farm on which nothing runs."""
    return await start_farm(workers=())


async def submitted(farm: Any, photo: Path, count: int, **options: Any) -> list[str]:
    """Oldest first."""
    upload = (await farm.post("uploads", files={"file": ("a.png", photo.read_bytes())})).json()["id"]
    wanted = {
        "model": "procedural",
        "num_frames": 8,
        "width": 64,
        "height": 64,
        "inputs": [upload],
        **options,
    }
    answers = [
        await farm.post("jobs", json={**wanted, "inputs": [upload], "seed": seed}) for seed in range(count)
    ]
    assert {answer.status_code for answer in answers} == {201}
    return [answer.json()["id"] for answer in answers]


async def listed(farm: Any, **query: Any) -> list[str]:
    answer = await farm.get("jobs", params=query)
    assert answer.status_code == 200, answer.text
    return [job["id"] for job in answer.json()["data"]]


async def test_jobs_are_listed_newest_first_or_oldest_first(idle: Any, photo: Path) -> None:
    ids = await submitted(idle, photo, 3)
    assert await listed(idle) == ids[::-1]
    assert await listed(idle, order="asc") == ids


@pytest.mark.parametrize("order", ["desc", "asc"])
async def test_pages_hold_together_while_jobs_come_and_go(idle: Any, photo: Path, order: str) -> None:
    ids = await submitted(idle, photo, 6)
    in_order = ids[::-1] if order == "desc" else ids
    seen: list[str] = []
    query = {"limit": 2, "order": order}
    while True:
        page = (await idle.get("jobs", params=query)).json()
        seen += [job["id"] for job in page["data"]]
        # The last one seen goes, and with it the place the cursor was taken at; another comes.
        await idle.post(f"jobs/{seen[-1]}/cancel")
        assert (await idle.http.delete(f"/api/v1/jobs/{seen[-1]}")).status_code == 204
        if len(seen) == 2:
            new = await submitted(idle, photo, 1, num_frames=9)
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == in_order + (new if order == "asc" else [])


async def test_jobs_are_found_by_status_model_and_words(idle: Any, photo: Path) -> None:
    ids = await submitted(idle, photo, 2, prompts=["A red Balloon"])
    other = await submitted(idle, photo, 1, model="procedural-mild", prompts=["ein blauer See"])
    await idle.post(f"jobs/{ids[0]}/cancel")
    assert await listed(idle, status="running") == [*other, ids[1]]
    assert await listed(idle, status="ended") == await listed(idle, status="cancelled") == [ids[0]]
    assert await listed(idle, status="succeeded") == []
    assert await listed(idle, model="procedural-mild") == other
    assert await listed(idle, q="BALLOON") == ids[::-1]
    assert await listed(idle, q="blauer", model="procedural") == []
    assert await listed(idle, q=ids[1][4:9]) == [ids[1]]
    assert await listed(idle, q="balloon", status="running", limit=1) == [ids[1]]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=all", "limit"),
        ("order=up", "order"),
        ("status=done", "status"),
        ("cursor=nonsense", "cursor"),
        ("cursor=", "cursor"),
        (f"cursor={cursor_after(10**25)}", "cursor"),
        ("modell=x", "modell"),
        ("limit=1&limit=2", "limit"),
    ],
)
async def test_a_query_that_means_nothing_is_refused_by_name(
    shared_farm: Any, query: str, param: str
) -> None:
    answer = await shared_farm.get(f"jobs?{query}")
    assert (answer.status_code, shared_farm.error_of(answer)["param"]) == (400, param)


async def test_a_list_tells_from_which_event_to_go_on(idle: Any, photo: Path) -> None:
    assert (await idle.get("jobs")).json()["last_event_id"] == idle.coordinator.ledger.last_seq
    (job_id,) = await submitted(idle, photo, 1)
    page = (await idle.get("jobs")).json()
    assert page["last_event_id"] == idle.coordinator.ledger.last_seq
    assert page["data"][0]["last_event_id"] == idle.coordinator.ledger.job(job_id).last_seq


async def test_a_job_in_a_list_is_the_job_as_it_is(farm: Any, photo: Path) -> None:
    job_id = (await farm.submit(photo)).json()["id"]
    assert (await farm.get("jobs")).json()["data"][0]["status"] == "running"
    await farm.until_ended(job_id)
    (listed,) = (await farm.get("jobs")).json()["data"]
    assert listed == (await farm.get(f"jobs/{job_id}")).json()
    assert listed["status"] == "succeeded"
    assert (await farm.post(f"jobs/{job_id}/rerender", json={"start": 0, "end": 8})).status_code == 200
    assert (await farm.get("jobs")).json()["data"][0]["status"] == "running"


async def test_a_page_of_many_jobs_is_made_once(idle: Any, photo: Path, monkeypatch: Any) -> None:
    ids = await submitted(idle, photo, 4)
    for job_id in ids:
        await idle.post(f"jobs/{job_id}/cancel")
    first = (await idle.get("jobs")).content
    monkeypatch.setattr("dashboard.api.job_summaries.job_summary", None)
    assert (await idle.get("jobs")).content == first
    assert json.loads(first)["data"][0]["submitted_at"] <= time.time()
