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
