"""Routes are read once in a process, and each app answers for its own farm."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.routing import APIRoute


async def test_two_farms_of_a_process_share_what_was_read_of_their_routes_and_nothing_else(
    running_farm: Callable[..., AbstractAsyncContextManager[Any]], tmp_path: Path
) -> None:
    async with (
        running_farm(tmp_path / "a", workers=("attic/cpu0",)) as one,
        running_farm(tmp_path / "b", workers=("cellar/cpu0",)) as other,
    ):
        for farm, node in ((one, "attic"), (other, "cellar")):
            found = (await farm.get("nodes")).json()["data"]
            assert [each["name"] for each in found] == [node]
        assert one.app.openapi() == other.app.openapi()
        pairs = [
            (a, b)
            for a, b in zip(one.app.routes, other.app.routes, strict=True)
            if isinstance(a, APIRoute)
            and isinstance(b, APIRoute)
            and a.path.startswith(("/api/v1/jobs", "/v1"))
        ]
    assert len(pairs) > 30
    for a, b in pairs:
        assert a.dependant.path_params is b.dependant.path_params
        assert a.endpoint is not b.endpoint
        assert b.dependant.call is b.endpoint


async def test_routes_of_one_function_under_two_methods_are_two(farm: Any) -> None:
    operations = farm.app.openapi()["paths"]["/api/v1/jobs/{job_id}/artifacts/{name}"]
    assert {"get", "head"} <= set(operations)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/videos/edits", "POST"),
        ("/v1/videos/extensions", "POST"),
        ("/v1/videos/video_1", "DELETE, GET"),
        ("/api/v1/jobs", "GET, POST"),
        ("/api/v1/health", "GET"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_method_that_is_not_taken_is_answered_with_those_that_are(
    shared_farm: Any, path: str, allowed: str
) -> None:
    answer = await shared_farm.http.options(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("jobs", 200),
        ("health", 200),
        ("events", 200),  # which never ends
        ("jobs/job-00000000beef", 404),
        ("jobs/job-00000000beef/cancel", 405),
    ],
)
async def test_head_is_answered_where_get_is_and_without_a_body(
    farm: Any, serve: Any, address: str, status: int
) -> None:
    async with httpx2.AsyncClient(base_url=await serve(farm.app), headers=farm.bearer) as http:
        answer = await http.head(f"/api/v1/{address}", timeout=20)
        assert (answer.status_code, answer.content) == (status, b"")
        assert "content-type" in answer.headers
        stranger = await http.head("/api/v1/jobs", headers={"Authorization": "Bearer no"})
        assert stranger.status_code == 401
