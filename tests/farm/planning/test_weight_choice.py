"""A job has one weight format, as asked or as proposed, and its plan says what was assumed of its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from farm.capabilities import OWN_WEIGHTS, EngineSpec, LoraFile, RungSpec, StageCost, WeightFile, Weights
from farm.errors import CannotRun
from farm.planning.planner import plan
from farm.planning.suggest import plan_over

MIB = 2**20


def spec_of(
    make: Any, weights: Weights = OWN_WEIGHTS, *, bytes_per_weight: int = 2, **changes: Any
) -> EngineSpec:
    """A transformer of 2000 MiB in 16 bits: whole, streamed from host memory, or from its file."""
    stages = (StageCost(name="denoise", components=("transformer",)),)
    streamed = (StageCost(name="denoise", fixed_bytes=200 * MIB),)
    default: dict[str, Any] = {
        "component_bytes": {"transformer": 1000 * MIB * bytes_per_weight},
        "context_bytes": 100 * MIB,
        "rungs": (
            RungSpec(name="resident", stages=stages),
            RungSpec(name="stream", stages=streamed),
            RungSpec(name="disk", stages=streamed, in_files=("transformer",)),
        ),
        "weights": weights,
    }
    return make.spec(**(default | changes))  # type: ignore[no-any-return]


def with_lighter(make: Any, weights: Weights = OWN_WEIGHTS, **changes: Any) -> EngineSpec:
    lighter = tuple(
        spec_of(make, weights.model_copy(update={"format": format}), bytes_per_weight=1, format_db=db)
        for format, db in (("int8", 31.6), ("float8", None))
    )
    return spec_of(make, weights, in_fewer_bits=lighter, **changes)


@pytest.mark.parametrize(
    ("vram_mib", "host_mib", "format"),
    [
        (3000, 0, None),  # whole on the card: nothing waits on the host
        (3000, 4000, None),
        (400, 2500, None),  # streamed
        (1200, 4000, None),
        (400, 1200, "int8"),  # its host has the memory for 8 bits
        (1200, 1200, "int8"),
        (400, 500, None),  # from files, for no format is in memory
    ],
)
def test_fewer_bits_are_proposed_where_only_they_are_in_some_workers_memory(
    make: Any, vram_mib: int, host_mib: int, format: str | None
) -> None:
    spec = with_lighter(make)
    if (vram_mib, host_mib) == (3000, 0):
        resident = spec.rungs[0].model_copy(update={"resident": ("transformer",)})
        spec = spec.model_copy(update={"rungs": (resident, *spec.rungs[1:])})
    worker = make.worker("a/0", vram_mib / 1024, host_bytes=host_mib * MIB)
    made = plan_over(make.request(), spec, [worker])
    assert made.weights.format == format
    said = [note for note in made.notes if note.startswith("weights in int8")]
    assert said == (
        []
        if format is None
        else [
            "weights in int8 on all workers: none here has the memory for synthetic in 16 bits; 32 dB from "
            "16 bits, as it was measured"
        ]
    )


def test_one_worker_that_has_the_memory_for_16_bits_keeps_the_job_in_them(make: Any) -> None:
    small = make.worker("a/0", 0.4, host_bytes=1200 * MIB)
    large = make.worker("b/0", 0.4, host_bytes=2500 * MIB)
    assert plan_over(make.request(), with_lighter(make), [small, large]).weights.format is None
    assert plan_over(make.request(), with_lighter(make), []).weights.format is None


def test_a_format_that_is_asked_for_stays_and_its_refusal_names_the_one_that_fits(make: Any) -> None:
    spec = with_lighter(make, Weights(format="bf16"))
    spec = spec.model_copy(update={"rungs": spec.rungs[:2]})
    lighter = tuple(s.model_copy(update={"rungs": s.rungs[:2]}) for s in spec.in_fewer_bits)
    spec = spec.model_copy(update={"in_fewer_bits": lighter})
    worker = make.worker("a/0", 0.4, host_bytes=1200 * MIB)
    with pytest.raises(CannotRun, match=r"1.95 GiB of weights there.*; --weight-format int8 would fit$"):
        plan_over(make.request(weight_format="bf16"), spec, [worker])


def test_where_nothing_was_measured_the_plan_says_so(make: Any) -> None:
    made = plan(make.request(), with_lighter(make).in_fewer_bits[1])
    assert made.weights == Weights(format="float8")
    assert "float8" in made.loaded_as
    assert made.notes[0].endswith("how near that is to 16 bits was not measured with these weights")
    assert (
        not plan(make.request(weight_format="float8"), with_lighter(make).in_fewer_bits[1])
        .notes[0]
        .startswith("weights in")
    )


@pytest.mark.parametrize(
    ("name", "said_by", "asked", "note"),
    [
        (
            "light.safetensors",
            None,
            {},
            "1 steps and guidance 9: synthetic's own, for no LoRA says otherwise; a few-step LoRA wants its "
            "own, such as --steps 4 --guidance 1",
        ),
        (
            "lightx2v_4steps_high.safetensors",
            None,
            {},
            "1 steps and guidance 9: synthetic's own, for no LoRA says otherwise; a LoRA's name says 4 "
            "steps: --steps 4 --guidance 1 follows it",
        ),
        (
            "light.safetensors",
            "light.safetensors",
            {},
            "1 steps and guidance 9: as light.safetensors says of itself",
        ),
        (
            "light.safetensors",
            "light.safetensors",
            {"num_inference_steps": 6},
            "guidance 9: as light.safetensors says of itself",
        ),
        (
            "light.safetensors",
            None,
            {"num_inference_steps": 4, "guidance_scale": 1.0},
            "4 steps and guidance 1, as asked, with 1 LoRAs",
        ),
    ],
)
def test_with_a_lora_the_plan_says_where_steps_and_guidance_come_from(
    make: Any, name: str, said_by: str | None, asked: dict[str, Any], note: str
) -> None:
    loras = (LoraFile(path=Path(name)),)
    spec = make.spec(weights=Weights(loras=loras), steps_from=said_by)
    made = plan(make.request(loras=loras, **asked), spec)
    assert note in made.notes
    assert made.num_inference_steps == asked.get("num_inference_steps", spec.default_steps)
    assert made.guidance_scale == asked.get("guidance_scale", spec.default_guidance_scale)


def test_every_segment_is_ordered_with_the_plans_weights(make: Any) -> None:
    weights = Weights(files=(WeightFile(path=Path("a.gguf"), fingerprint="f"),))
    made = plan(make.request(weights=weights.files), make.spec(weights=weights))
    assert {made.render_task(segment).weights for segment in made.segments} == {weights}
    assert made.loaded_as == "synthetic with a.gguf"
    assert type(made).model_validate_json(made.model_dump_json()) == made
    assert make.plan(make.spec()).loaded_as == "synthetic"


def test_weights_that_the_spec_is_not_of_are_refused(make: Any) -> None:
    with pytest.raises(CannotRun, match=r"synthetic runs with its own weights alone; leave out weights"):
        plan(make.request(weight_format="int8"), make.spec())


def test_a_small_draft_by_the_videos_own_model_has_its_weights_and_another_models_draft_its_own(
    make: Any,
) -> None:
    weights = Weights(loras=(LoraFile(path=Path("fast.safetensors")),))
    takes = frozenset({"image", "last_image", "text", "video"})
    # A model of one pace drafts small, in few steps.
    sizes = {"native_width": 512, "native_height": 512, "trained_sides": (128, 512), "native_fps": 8}
    spec = make.spec(takes=takes, weights=weights, min_fps=8.0, default_steps=20, **sizes)
    request = make.request(loras=weights.loras, mode="infill", num_frames=40)
    own = plan(request, spec)
    assert own.draft is not None
    assert (own.draft.weights, own.draft.loaded_as) == (weights, own.loaded_as)
    assert {own.render_task(segment).weights for segment in own.segments} == {weights}
    light = make.spec(model="light", takes=takes, min_fps=8.0)
    other = plan(request.model_copy(update={"draft_model": "light"}), spec, draft=light)
    assert other.draft is not None
    assert (other.draft.weights, other.draft.loaded_as) == (OWN_WEIGHTS, "light")
