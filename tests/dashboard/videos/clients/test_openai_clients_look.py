"""What the official openai clients find of videos: states, pages, content, and nothing where nothing is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from farm.request.job import JobRequest
from farm.request.media import MediaInfo

pytestmark = pytest.mark.clients

OPTIONS = {"model": "procedural", "size": "64x64", "extra_body": {"num_frames": 24, "fps": 8}}


@pytest.mark.parametrize("how", ["failed", "cancelled"])
async def test_polling_ends_where_a_video_has_failed_or_is_cancelled(start_served: Any, how: str) -> None:
    served = await start_served(workers=())
    polling = asyncio.ensure_future(served.client.create_and_poll(prompt="x", **OPTIONS))
    coordinator = served.farm.coordinator
    await served.farm.until(lambda: sum(method == "GET" for method, _ in served.wire.asked) >= 1)
    (job,) = coordinator.ledger.state.jobs.values()
    if how == "failed":
        coordinator.stop(job, "three workers have failed")
    else:
        coordinator.cancel(job.id)
    video = await asyncio.wait_for(polling, 30)
    assert video["status"] == "failed"
    assert video["error"]["code"] == {"failed": "job_failed", "cancelled": "cancelled"}[how]
    assert {path for method, path in served.wire.asked if method == "GET"} == {f"/v1/videos/{video['id']}"}


def put_videos(served: Any, photo: Path, number: int) -> list[str]:
    """So many jobs that wait, as if they had been submitted; ids of their videos, the oldest first."""
    coordinator = served.farm.coordinator
    sha256 = coordinator.storage.put(photo.read_bytes())
    media = MediaInfo(kind="image", width=96, height=96, num_frames=1, sha256=sha256, path=photo)
    ids = []
    for seed in range(number):
        request = JobRequest(
            inputs=(media,), model="procedural", num_frames=8, width=64, height=64, seed=seed
        )
        ids.append(coordinator.submit(request).replace("job-", "video_"))
    return ids


async def test_250_videos_are_listed_over_all_pages(start_served: Any, photo: Path) -> None:
    served = await start_served(workers=())
    assert await served.client.every_id() == []
    empty = await served.client.page()
    assert empty == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    ids = put_videos(served, photo, 250)
    assert await served.client.every_id() == ids[::-1]
    assert await served.client.every_id(limit=100, order="asc") == ids
    served.wire.asked.clear()
    assert await served.client.every_id(limit=1, order="desc") == ids[::-1]
    assert len(served.wire.asked) >= 250
    page = await served.client.page(limit=20, order="asc")
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[0], ids[19], True)


async def test_a_video_that_is_deleted_between_two_pages_loses_no_other(
    start_served: Any, photo: Path
) -> None:
    served = await start_served(workers=())
    ids = put_videos(served, photo, 6)
    page = await served.client.page(limit=3, order="asc")
    await served.client.delete(video_id=page["last_id"])
    assert await served.client.every_id(limit=2, order="asc", after=page["last_id"]) == ids[3:]


async def test_content_that_is_not_there_yet_is_asked_for_once(start_served: Any) -> None:
    served = await start_served(workers=())
    video = await served.client.create(prompt="x", **OPTIONS)
    served.wire.asked.clear()
    refused = await served.client.refused("download_content", video_id=video["id"])
    assert (refused["error"], refused["status"], refused["code"]) == ("NotFoundError", 404, "not_ready")
    assert served.wire.asked == [("GET", f"/v1/videos/{video['id']}/content")]


async def test_a_video_is_deleted_once(start_served: Any) -> None:
    served = await start_served(workers=())
    video = await served.client.create(prompt="x", **OPTIONS)
    deleted = await served.client.delete(video_id=video["id"])
    assert deleted == {"id": video["id"], "object": "video.deleted", "deleted": True}
    refused = await served.client.refused("delete", video_id=video["id"])
    assert (refused["error"], refused["status"]) == ("NotFoundError", 404)


@pytest.mark.asyncio(loop_scope="module")
async def test_without_the_right_key_nothing_is_told(served: Any) -> None:
    served.client.key = "wrong"
    refused = await served.client.refused("create", prompt="x", **OPTIONS)
    assert (refused["error"], refused["status"]) == ("AuthenticationError", 401)
    assert len(served.wire.asked) == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_a_key_that_may_only_read_starts_nothing(served: Any) -> None:
    headers = {"Authorization": f"Bearer {served.client.key}"}
    made = await served.farm.http.post(
        "/api/v1/keys", json={"name": "viewer", "scopes": ["read"]}, headers=headers
    )
    seen = await served.client.every_id()
    served.client.key = made.json()["key"]
    assert await served.client.every_id() == seen
    refused = await served.client.refused("create", prompt="x", **OPTIONS)
    assert (refused["error"], refused["code"]) == ("PermissionDeniedError", "forbidden")


@pytest.mark.parametrize("wrong", ["a/../b", "../jobs", "video_000000000000", "video_0/x"])
@pytest.mark.asyncio(loop_scope="module")
async def test_an_id_that_is_none_finds_nothing(served: Any, wrong: str) -> None:
    for method in ("retrieve", "download_content", "delete"):
        refused = await served.client.refused(method, video_id=wrong)
        assert (refused["error"], refused["status"]) == ("NotFoundError", 404)
