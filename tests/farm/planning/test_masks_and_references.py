"""A mask says where a video is changed; references are pictures of what is to be seen."""

from __future__ import annotations

from typing import Any

import pytest

from farm.capabilities import FrameRule
from farm.capabilities.engine_spec import EngineSpec
from farm.errors import CannotRun, FarmError, InvalidInput
from farm.planning.plan import Plan
from farm.planning.predict import outline

TAKES = frozenset({"image", "last_image", "keyframes", "text", "video", "mask", "references"})
PLAIN = frozenset({"image", "text", "video"})


def spec(make: Any, **changes: Any) -> EngineSpec:
    default = {"takes": TAKES, "frames": FrameRule.causal(4, max_frames=33), "window_frames": 17}
    made: EngineSpec = make.spec(**(default | {"pixels_per_token": 256} | changes))
    return made


def test_what_a_mask_keeps_stays_and_the_rest_is_made_from_noise(make: Any) -> None:
    asked = {"inputs": (make.video(40),), "num_frames": 40}
    masked: Plan = make.plan(spec(make), mask=make.image(7), **asked)
    assert (masked.mode, masked.strength, masked.mask) == ("refine", 1.0, make.image(7))
    assert make.plan(spec(make), **asked).strength == 0.6
    assert make.plan(spec(make), mask=make.image(7), strength=0.4, **asked).strength == 0.4


@pytest.mark.parametrize(
    ("changes", "error", "param", "said"),
    [
        ({"mask": "image"}, InvalidInput, "mask", "no video"),
        ({"mask": "other shape", "inputs": "video"}, InvalidInput, "mask", "one of the video's shape"),
        (
            {"mask": "short", "inputs": "video"},
            InvalidInput,
            "mask",
            "8 frames at 24 a second, and the video 40",
        ),
        ({"references": "video"}, InvalidInput, "references", "give pictures"),
        ({"references": "five"}, InvalidInput, "references", "at most 4"),
        ({"mask": "image", "inputs": "video", "takes": PLAIN}, CannotRun, "mask", "synthetic takes none"),
        ({"references": "one", "takes": PLAIN}, CannotRun, "references", "synthetic takes none"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(
    make: Any, changes: dict[str, Any], error: type[FarmError], param: str, said: str
) -> None:
    files = {
        "image": make.image(7),
        "other shape": make.image(7, width=512, height=384),
        "short": make.video(8),
        "one": (make.image(1),),
        "five": tuple(map(make.image, range(5))),
    }
    asked: dict[str, Any] = {name: files.get(what, what) for name, what in changes.items()}
    able = spec(make, takes=asked.pop("takes", TAKES))
    if asked.get("inputs"):
        asked |= {"inputs": (make.video(40),), "num_frames": 40}
    if asked.get("references") == "video":
        asked["references"] = (make.video(8),)
    with pytest.raises(error, match=said) as found:
        make.plan(able, **asked)
    assert found.value.param == param


def test_each_reference_is_a_latent_more_in_need_and_time(make: Any) -> None:
    able = spec(make)
    stage = able.rungs[0].stages[0].model_copy(update={"bytes_per_token": 1000.0, "batch": 1})
    able = able.model_copy(update={"rungs": (able.rungs[0].model_copy(update={"stages": (stage,)}),)})
    asked = {"mode": "chain", "num_frames": 17, "width": 512, "height": 512}
    none, two = make.plan(able, **asked), make.plan(able, references=(make.image(1), make.image(2)), **asked)
    more = two.on["cuda"].need_bytes["resident"] - none.on["cuda"].need_bytes["resident"]
    assert more == 2 * 32 * 32 * 1000
    window = two.segments[0]
    assert two.timed_units(window, "cuda") / none.timed_units(none.segments[0], "cuda") == pytest.approx(
        7 / 5
    )


def test_the_task_that_encodes_prompts_is_shown_none(make: Any) -> None:
    able = spec(make, text_components=("text",))
    made = make.plan(able, mode="chain", num_frames=40, references=(make.image(1),))
    text, *windows = made.segments
    assert (text.level, text.latents_beside) == ("text", 0)
    assert {s.latents_beside for s in windows} == {1}
    assert made.cost_s > 0


@pytest.mark.parametrize(("overlap", "beside"), [(1, 1), (5, 2)])
def test_frames_that_stand_beside_a_window_are_counted_as_its_latents(
    make: Any, overlap: int, beside: int
) -> None:
    able = spec(make, gives_beside=True, min_fps=0.5, max_end_latents=2)
    made = make.plan(able, mode="infill", num_frames=96, overlap_frames=overlap)
    finals = made.final_segments
    # What starts a window stands in its place; what ends it beside it. Nothing ends the last.
    assert [s.latents_beside for s in finals] == [*[beside] * (len(finals) - 1), 0]
    assert all(s.latents_beside == 0 for s in made.segments if s.level != "final")
    within = make.plan(able.model_copy(update={"gives_beside": False}), mode="infill", num_frames=96)
    assert all(s.latents_beside == 0 for s in within.segments)


def test_what_stands_beside_a_window_counts_in_its_time(make: Any) -> None:
    able = spec(make, gives_beside=True, min_fps=0.5)
    made: Plan = make.plan(able, mode="infill", num_frames=96)
    finals = {segment.latents_beside: segment for segment in made.final_segments}
    assert len(finals) > 1, "the last window ends on nothing that is given"
    assert made.costs_s() == [made.cost_s_of(segment) for segment in made.segments]
    drawn = outline(made)
    units = [drawn.units[kind] for kind in drawn.kinds]
    assert units == pytest.approx([made.cost_s_of(segment) for segment in made.segments])
