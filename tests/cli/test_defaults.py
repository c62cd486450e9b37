"""What a bare command takes: the model that comes with the farm, two CPU workers, a preview on demand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from farm.capabilities.worker import GIB, Worker
from farm.errors import InvalidInput
from farm.machines.options import NUM_CPU_WORKERS, shared_cpu
from farm.planning.plan import Plan
from farm.request.options import request_options
from nodes.engines.table import spec_of

PHOTO = str(Path(__file__).parents[2] / "examples" / "coffee.jpg")
DEMO = ("plan", PHOTO, "--json", "--prompt", "the camera slowly pans right", "--seconds", "10")
NOTHING_CHOSEN: dict[str, Any] = {
    "prompts": (),
    "negative_prompt": "",
    "model": "tiny_wan",
    "mode": "auto",
    **dict.fromkeys(("seconds", "frames", "fps", "size", "window", "overlap", "steps", "guidance")),
    "fit": "crop",
    "audio": None,
    "strength": None,
    "seed": 0,
    "priority": 50,
}


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_a_preview_with_steps_of_its_own_is_refused(steps: int) -> None:
    with pytest.raises(InvalidInput, match=f"^steps is {steps} and --preview takes the model's fewest; give"):
        request_options(**NOTHING_CHOSEN | {"preview": True, "steps": steps})


@pytest.mark.parametrize(("cores", "count"), [(1, 1), (2, NUM_CPU_WORKERS), (64, NUM_CPU_WORKERS)])
def test_the_cpu_is_shared_out_evenly(cores: int, count: int) -> None:
    cpu = Worker(
        id="attic/cpu0",
        node="attic",
        kind="cpu",
        device_name="CPU",
        vram_bytes=12 * GIB,
        price_per_hour=0.3,
    )
    workers = shared_cpu(cpu, cores)
    assert [w.id for w in workers] == [f"attic/cpu{i}" for i in range(count)]
    assert {w.vram_bytes for w in workers} == {12 * GIB // count}
    assert sum(w.price_per_hour or 0.0 for w in workers) == pytest.approx(0.3)


def test_the_machine_and_the_model_are_chosen_where_the_command_names_none(farm: Any) -> None:
    made = Plan.model_validate_json(farm(*DEMO, "--workers", "2GiB,2GiB").out)
    spec = spec_of("tiny_wan")
    assert (made.model, made.mode, made.num_frames) == ("tiny_wan", "infill", 80)
    assert (made.num_inference_steps, made.guidance_scale) == (
        spec.default_steps,
        spec.default_guidance_scale,
    )


def test_a_preview_has_the_seed_the_windows_and_the_mode_of_the_video(farm: Any) -> None:
    asked = (*DEMO, "--workers", "2GiB,2GiB", "--seed", "5")
    video, preview = (Plan.model_validate_json(farm(*asked, *more).out) for more in ((), ("--preview",)))
    assert preview.num_inference_steps < video.num_inference_steps
    same = ("mode", "seed", "num_frames", "width", "height", "window_frames", "overlap_frames")
    for name in same:
        assert getattr(preview, name) == getattr(video, name)
    windows = [[(s.id, s.start, s.end, s.num_frames) for s in p.segments] for p in (preview, video)]
    assert windows[0] == windows[1]
