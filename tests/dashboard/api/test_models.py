"""What the farm can run is told of the workers that are here."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from safetensors.numpy import save_file

from farm.scheduling.runnable import Runnable
from nodes.engines.folders import component_tensors

TINY_WAN = Path(__file__).parents[3] / "models" / "tiny_wan"
STEM = "diffusion_pytorch_model"

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
    # The repository first: a refusal of it tells to accept it by that name.
    repository = before[model]["repository"]
    for name in (repository, f"{repository}@{'0' * 40}", model, f"{model}@{'0' * 40}", "tiny_wan"):
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


async def test_a_plan_is_made_with_the_weights_that_are_asked_for_or_says_what_is_wrong_with_them(
    shared_farm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REELFARM_WEIGHTS", str(tmp_path))
    picture = base64.b64encode(cv2.imencode(".png", np.full((64, 64, 3), 90, np.uint8))[1]).decode()
    asked = {"model": "tiny_wan", "num_frames": 9, "inputs": [f"data:image/png;base64,{picture}"]}
    # A LoRA that changes nothing of what it names.
    down, up = (f"blocks.0.ffn.net.0.proj.lora_{half}.weight" for half in "AB")
    wide, width = next(
        tuple(tensor.shape)
        for name, tensor in component_tensors(TINY_WAN / "transformer", STEM, half=False).items()
        if name.endswith("blocks.0.ffn.net.0.proj.weight")
    )
    lora = {down: np.zeros((2, width), np.float32), up: np.zeros((wide, 2), np.float32)}
    save_file(lora, tmp_path / "fast.safetensors")
    for loras in (["fast.safetensors:0.5"], [{"path": "fast.safetensors", "scale": 0.5}]):
        answer = await shared_farm.http.post(
            "/api/v1/plans", json={**asked, "loras": loras, "weight_format": "int8"}
        )
        assert answer.status_code == 200, answer.text
        weights = answer.json()["plan"]["weights"]
        assert (weights["format"], weights["loras"][0]["scale"]) == ("int8", 0.5)
    for wrong, param, said in (
        ({"weights": ["a.ckpt"]}, "weights", "a pickled checkpoint is a program"),
        ({"weights": ["a.gguf"], "weight_format": "int8"}, "weight_format", "has a format of its own"),
        ({"loras": ["gone.safetensors"]}, "loras", "is not in"),
        ({"loras": [{"path": "a.safetensors", "strength": 1}]}, "loras.0.strength", "is not known here"),
        ({"loras": [{"scale": 1}]}, "loras.0.path", "is missing"),
        ({"loras": ["high=fast.safetensors"]}, "loras", "tiny_wan has one transformer"),
        ({"model": "procedural", "weight_format": "int8"}, "weights", "runs with its own weights alone"),
    ):
        answer = await shared_farm.http.post("/api/v1/plans", json={**asked, **wrong})
        assert answer.status_code in (400, 422), answer.text
        error = answer.json()["error"]
        assert error["param"] == param, error
        assert said in error["message"]
