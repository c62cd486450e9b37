"""What the farm can run is told of the workers that are here."""

from __future__ import annotations

from typing import Any

import pytest

from farm.scheduling.runnable import Runnable

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_what_runs_is_told_of_the_models_that_are_asked_for(shared_farm: Any) -> None:
    (drawn,), (unknown,) = [
        (await shared_farm.get(f"models/runnable?model={name}")).json()["data"]
        for name in ("procedural", "sora")
    ]
    found = Runnable.model_validate(drawn["runnable"])
    assert found.largest is not None
    assert found.largest.holder is not None
    assert found.largest.holder.worker_id in {
        w["id"] for w in (await shared_farm.get("workers")).json()["data"]
    }
    assert (unknown["runnable"], "sora" in unknown["why_not"]) == (None, True)


async def test_every_model_with_a_name_is_told_of(shared_farm: Any) -> None:
    named = [model["model"] for model in (await shared_farm.get("models")).json()["data"]]
    told = (await shared_farm.get("models/runnable")).json()["data"]
    assert [model["model"] for model in told] == named
    assert all(model["runnable"] or model["why_not"] for model in told)


async def test_a_licence_that_restricts_use_is_accepted_once(farm: Any) -> None:
    async def listed() -> dict[str, Any]:
        return {model["model"]: model for model in (await farm.get("models")).json()["data"]}

    model = "ltx-video-0.9.8-13b-distilled"
    before = await listed()
    assert (before[model]["accepted"], before["tiny_wan"]["accepted"]) == (False, True)
    for name in (model, f"{model}@{'0' * 40}", "tiny_wan"):
        answer = await farm.http.post("/api/v1/models/licences", json={"model": name})
        assert (answer.status_code, answer.json()["accepted"]) == (200, True)
    assert (await listed())[model]["accepted"]
    assert farm.coordinator.ledger.state.accepted_licences == {before[model]["licence"]["name"]}
    answer = await farm.http.post("/api/v1/models/licences", json={"model": "sora"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "model")


async def test_what_a_model_that_is_not_here_would_need_is_not_fetched_to_be_told(farm: Any) -> None:
    answer = await farm.http.get("/api/v1/models/wan2.2-i2v-a14b/choices")
    assert answer.status_code == 422
    assert "the first job with it fetches them" in answer.json()["error"]["message"]
