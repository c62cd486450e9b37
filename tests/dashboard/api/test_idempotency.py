"""One job for every Idempotency-Key, whoever sends it how often."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dashboard.access.decisions import Principal
from dashboard.intake.specs import Specs
from dashboard.intake.submitting import RESENT_WITHIN_S, Submitting, keyed_job_id

OPTIONS = {"model": "procedural", "num_frames": 8, "width": 32, "height": 32}


def principal(name: str) -> Principal:
    return Principal(name, name, frozenset({"submit"}))


async def submit(farm: Any, photo: Path, key: str, **options: Any) -> Any:
    return await farm.post(
        "jobs",
        data={"request": json.dumps({**OPTIONS, **options})},
        files=[("inputs", ("a.png", photo.read_bytes()))],
        headers={"Idempotency-Key": key},
    )


async def test_the_same_key_and_request_find_the_job_again(start_farm: Any, photo: Path) -> None:
    farm = await start_farm(workers=())
    first = await submit(farm, photo, "tuesday")
    assert (first.status_code, "idempotent-replayed" in first.headers) == (201, False)
    again = await submit(farm, photo, "tuesday")
    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
    assert again.json()["id"] == first.json()["id"]
    # The same file as an upload, and the options as JSON, ask for the same video.
    upload = (await farm.post("uploads", files={"file": ("b.png", photo.read_bytes())})).json()["id"]
    body = {**OPTIONS, "inputs": [upload]}
    as_json = await farm.post("jobs", json=body, headers={"Idempotency-Key": "tuesday"})
    assert (as_json.status_code, as_json.json()["id"]) == (200, first.json()["id"])
    assert (await submit(farm, photo, "wednesday")).status_code == 201
    assert len((await farm.get("jobs")).json()["data"]) == 2


async def test_the_same_key_with_another_request_is_refused(start_farm: Any, photo: Path) -> None:
    farm = await start_farm(workers=())
    await submit(farm, photo, "k")
    answer = await submit(farm, photo, "k", seed=1)
    error = farm.error_of(answer)
    assert (answer.status_code, error["code"]) == (422, "idempotency_key_reused")
    assert error["param"] == "Idempotency-Key"
    assert len((await farm.get("jobs")).json()["data"]) == 1


async def test_many_submits_with_one_key_at_once_start_one_job(start_farm: Any, photo: Path) -> None:
    farm = await start_farm(workers=())
    answers = await asyncio.gather(*(submit(farm, photo, "rush") for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(farm.coordinator.ledger.state.jobs) == 1


async def test_a_key_is_remembered_over_a_restart_of_the_farm(
    running_farm: Any, tmp_path: Path, photo: Path
) -> None:
    async with running_farm(tmp_path / "state") as farm:
        first = await submit(farm, photo, "k")
        await farm.until_ended(first.json()["id"])
    async with running_farm(tmp_path / "state") as farm:
        again = await submit(farm, photo, "k")
        assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
        assert again.json()["status"] == "succeeded"
        assert (await submit(farm, photo, "k", seed=2)).status_code == 422
        assert len(farm.coordinator.ledger.state.jobs) == 1


async def test_a_key_of_a_deleted_job_starts_it_anew(farm: Any, photo: Path) -> None:
    first = (await submit(farm, photo, "k")).json()["id"]
    await farm.until_ended(first)
    assert (await farm.http.delete(f"/api/v1/jobs/{first}")).status_code == 204
    again = await submit(farm, photo, "k")
    assert (again.status_code, again.json()["id"]) == (201, first)
    await farm.until_ended(first)
    assert (await farm.get(f"jobs/{first}")).json()["status"] == "succeeded"


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "schlüssel".encode()])
async def test_a_key_that_is_none_is_refused(farm: Any, photo: Path, key: Any) -> None:
    answer = await submit(farm, photo, key)
    error = farm.error_of(answer)
    assert (answer.status_code, error["param"]) == (400, "Idempotency-Key")


def test_keys_of_two_principals_are_two_jobs() -> None:
    one, other = (keyed_job_id(principal(name), "k") for name in ("ann", "bob"))
    assert one != other
    assert one == keyed_job_id(principal("ann"), "k")


async def test_a_request_that_a_client_sends_again_by_itself_finds_its_job(
    start_farm: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = await start_farm(workers=())
    submitting = Submitting(farm.coordinator, Specs(farm.coordinator.spec_of))
    job_id = (await submit(farm, photo, "k")).json()["id"]
    request = farm.coordinator.ledger.state.jobs[job_id].request
    media = request.inputs[0].model_copy(update={"path": photo})
    request = request.model_copy(update={"inputs": (media,)})
    owner = principal("owner")
    namesake = replace(owner, id="3f9a1c07")
    assert not (await submitting.submit_job(request, namesake, resent=True))[1]
    assert (await submitting.submit_job(request, owner, resent=True))[1]
    assert not (await submitting.submit_job(request, principal("bob"), resent=True))[1]
    assert not (await submitting.submit_job(request, owner))[1]
    other = request.model_copy(update={"seed": 5})
    assert not (await submitting.submit_job(other, owner, resent=True))[1]
    then = farm.coordinator.clock() + RESENT_WITHIN_S + 1
    monkeypatch.setattr(farm.coordinator, "clock", lambda: then)
    assert not (await submitting.submit_job(request, owner, resent=True))[1]
