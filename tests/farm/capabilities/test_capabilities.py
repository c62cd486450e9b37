"""What a task needs grows with its size, and a worker takes the fastest rung it can hold."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from farm.capabilities import FrameRule
from farm.capabilities.engine_spec import RUNG_ORDER, EngineSpec, RenderShape, host_need_bytes, need_bytes
from farm.capabilities.worker import GIB, Need, fitting_rungs, why_not, workers_from_json
from nodes.engines.procedural import engine as procedural

NEEDS: dict[Any, Need] = {
    "resident": Need(8 * GIB),
    "evict": Need(6 * GIB, host_bytes=4 * GIB),
    "stream": Need(2 * GIB, host_bytes=12 * GIB),
}


def shape(**changes: Any) -> RenderShape:
    default = {"num_frames": 8, "height": 512, "width": 512, "num_inference_steps": 1, "guided": True}
    return RenderShape(**(default | changes))


def specs(make: Any) -> list[EngineSpec]:
    return [make.spec(), make.spec(reserve_ratio=1.4), procedural.spec("procedural")]


@pytest.mark.parametrize("field", ["num_frames", "width", "height"])
def test_the_need_never_shrinks_when_frames_or_pixels_grow(make: Any, field: str) -> None:
    for spec in specs(make):
        for rung in spec.rungs:
            needs = [need_bytes(spec, rung, shape(**{field: 8 * k})) for k in range(1, 65)]
            assert all(a <= b for a, b in pairwise(needs))
            assert needs[0] < needs[-1]


def test_guidance_needs_more_and_steps_need_nothing(make: Any) -> None:
    spec = make.spec()
    rung = spec.rungs[0]
    assert need_bytes(spec, rung, shape(guided=False)) < need_bytes(spec, rung, shape())
    assert need_bytes(spec, rung, shape(num_inference_steps=50)) == need_bytes(spec, rung, shape())


def test_the_need_is_the_context_and_the_reserved_peak_of_the_dearest_stage(make: Any) -> None:
    spec = make.spec(reserve_ratio=1.5)
    activations = 256 * 2 * 8 * 512 * 512
    resident, evict, stream = (need_bytes(spec, rung, shape()) for rung in spec.rungs)
    assert resident == GIB // 2 + 1.5 * (3 * GIB + activations)
    assert evict == GIB // 2 + 1.5 * (2 * GIB + activations)
    assert stream == GIB // 2 + 1.5 * (GIB // 2 + activations)


def test_a_stage_that_works_in_pieces_needs_no_more_for_more_frames(make: Any) -> None:
    spec = make.spec()
    rung = spec.rungs[0]
    pieces = rung.model_copy(update={"stages": (rung.stages[0].model_copy(update={"frames_at_once": 4}),)})
    assert need_bytes(spec, pieces, shape(num_frames=4)) == need_bytes(spec, pieces, shape(num_frames=64))


def test_a_transformer_needs_its_bytes_for_every_token_of_the_windows_latents(make: Any) -> None:
    spec = make.spec(frames=FrameRule.causal(8, max_frames=257), pixels_per_token=1024, reserve_ratio=1.0)
    stage = spec.rungs[0].stages[0].model_copy(update={"bytes_per_pixel": 0.0, "bytes_per_token": 1000.0})
    rung = spec.rungs[0].model_copy(update={"stages": (stage,)})
    window = shape(num_frames=161, height=480, width=704, guided=False)
    assert need_bytes(spec, rung, window) == spec.context_bytes + 3 * GIB + 1000 * 21 * 15 * 22


def test_only_the_stages_that_a_task_runs_count(make: Any) -> None:
    spec = make.spec(reserve_ratio=1.0)
    clip = (
        spec.rungs[0]
        .stages[0]
        .model_copy(
            update={"name": "vae_encode_clip", "bytes_per_pixel": 1000.0, "batch": 1, "clips_only": True}
        )
    )
    rung = spec.rungs[0].model_copy(update={"stages": (*spec.rungs[0].stages, clip)})
    photo, video = (need_bytes(spec, rung, shape(encodes_clips=clips)) for clips in (False, True))
    assert photo == need_bytes(spec, spec.rungs[0], shape())
    assert video == spec.context_bytes + 3 * GIB + 1000 * 8 * 512 * 512


def test_what_a_stage_reserves_beyond_its_tensors_is_of_its_tensors_and_not_of_the_weights(make: Any) -> None:
    spec = make.spec(reserve_ratio=1.0)
    stage = spec.rungs[0].stages[0].model_copy(update={"reserve_ratio": 1.5})
    rung = spec.rungs[0].model_copy(update={"stages": (stage,)})
    activations = 256 * 2 * 8 * 512 * 512
    assert need_bytes(spec, rung, shape()) == spec.context_bytes + 3 * GIB + 1.5 * activations


def test_a_component_of_a_rung_and_of_its_stage_counts_once(make: Any) -> None:
    spec = make.spec()
    rung = spec.rungs[0]
    twice = rung.model_copy(update={"stages": (rung.stages[0].model_copy(update={"components": ("unet",)}),)})
    assert need_bytes(spec, twice, shape()) == need_bytes(spec, rung, shape())


@pytest.mark.parametrize(
    ("vram_gib", "rungs"),
    [
        (24, ["resident", "evict", "stream"]),
        (8, ["resident", "evict", "stream"]),
        (7.99, ["evict", "stream"]),
        (6, ["evict", "stream"]),
        (2, ["stream"]),
        (1.99, []),
    ],
)
def test_the_rungs_that_fit_come_fastest_first_and_a_need_equal_to_the_budget_fits(
    make: Any, vram_gib: float, rungs: list[str]
) -> None:
    worker = make.worker("a/0", vram_gib)
    assert fitting_rungs(NEEDS, worker) == rungs
    assert (why_not(NEEDS, worker) is None) == bool(rungs)


def test_why_a_worker_is_too_small_is_said_with_both_numbers(make: Any) -> None:
    assert why_not(NEEDS, make.worker("a/0", 1.5)) == (
        "a/0 has 1.50 GiB, the smallest rung (stream) needs 2.00 GiB"
    )


@pytest.mark.parametrize(
    ("vram_gib", "host_gib", "rungs"),
    [
        (24, None, ["resident", "evict", "stream"]),
        (24, 1, ["resident"]),
        (7, 8, ["evict"]),
        (7, 12, ["evict", "stream"]),
        (4, 12, ["stream"]),
        (4, 8, []),
    ],
)
def test_weights_that_are_not_on_the_card_need_room_in_the_machines_memory(
    make: Any, vram_gib: float, host_gib: float | None, rungs: list[str]
) -> None:
    host_bytes = None if host_gib is None else round(host_gib * GIB)
    worker = make.worker("a/0", vram_gib, host_bytes=host_bytes)
    assert fitting_rungs(NEEDS, worker) == rungs
    assert (why_not(NEEDS, worker) is None) == bool(rungs)


def test_a_machine_with_too_little_memory_is_told_with_both_numbers(make: Any) -> None:
    assert why_not(NEEDS, make.worker("a/0", 4, host_bytes=8 * GIB)) == (
        "a/0 has 8.00 GiB of its machine's memory, rung stream keeps 12.00 GiB of weights there"
    )


def test_a_machine_keeps_the_components_that_are_not_always_on_its_card(make: Any) -> None:
    spec = make.spec()
    assert [host_need_bytes(spec, rung) for rung in spec.rungs] == [0, 3 * GIB, 3 * GIB]
    apart = spec.model_copy(update={"text_components": ("text",)})
    assert [host_need_bytes(apart, rung) for rung in apart.rungs] == [0, 2 * GIB, 2 * GIB]
    assert [host_need_bytes(apart, rung, text=True) for rung in apart.rungs] == [0, GIB, GIB]


def test_every_spec_offers_its_rungs_in_the_ladders_order(make: Any) -> None:
    for spec in specs(make):
        positions = [RUNG_ORDER.index(rung.name) for rung in spec.rungs]
        assert positions == sorted(positions)


def test_the_workers_of_a_node_survive_being_told_as_json(make: Any) -> None:
    workers = [make.worker("a/0", 8, device_uuid="GPU-1", price_per_hour=0.2), make.worker("a/1", 4)]
    text = "[" + ",".join(w.model_dump_json() for w in workers) + "]"
    assert workers_from_json(text) == workers


@pytest.mark.parametrize(
    ("num_frames", "allowed"), [(1, False), (5, True), (6, False), (9, True), (33, True), (37, False)]
)
def test_a_window_rule_of_4k_plus_1_is_kept(make: Any, num_frames: int, allowed: bool) -> None:
    rule = FrameRule(step=4, remainder=1, min_frames=5, max_frames=33)
    assert rule.allows(num_frames) is allowed


@pytest.mark.parametrize(("wanted", "rendered"), [(1, 5), (5, 5), (6, 9), (9, 9), (10, 13)])
def test_the_shortest_window_that_holds_some_frames_keeps_the_rule(
    make: Any, wanted: int, rendered: int
) -> None:
    assert FrameRule(step=4, remainder=1, min_frames=5).at_least(wanted) == rendered
