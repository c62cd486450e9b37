"""A video of words alone: what each mode makes of a prompt without a picture."""

from __future__ import annotations

from typing import Any

import pytest

from farm.capabilities import FrameRule
from farm.capabilities.engine_spec import EngineSpec
from farm.errors import CannotRun
from farm.planning.choices import choices
from farm.planning.plan import Plan
from farm.planning.planner import plan

ABLE = frozenset({"image", "last_image", "text", "text_alone", "video"})
WORDS: dict[str, Any] = {"inputs": (), "prompts": ("a ship sails",), "num_frames": 40}


def able(make: Any, **changes: Any) -> EngineSpec:
    spec: EngineSpec = make.spec(**({"takes": ABLE} | changes))
    return spec


def test_a_chain_begins_with_its_prompt_and_goes_on_from_frames(make: Any) -> None:
    made: Plan = make.plan(able(make), mode="chain", **WORDS)
    first, *others = made.final_segments
    assert made.shots[0].media is None
    assert (first.handover_from, first.sources, first.known) == (None, (), ())
    assert all(segment.handover_from for segment in others)
    assert (made.width, made.height, made.read) == (512, 512, ())
    assert "size 512x512 chosen from the model's own" in made.notes
    assert Plan.model_validate_json(made.model_dump_json()) == made


def test_between_keyframes_the_first_window_too_begins_with_what_is_drafted(make: Any) -> None:
    made: Plan = make.plan(able(make), mode="infill", overlap_frames=1, **WORDS)
    with_picture: Plan = make.plan(
        able(make), mode="infill", overlap_frames=1, **(WORDS | {"inputs": (make.image(),)})
    )
    first = made.final_segments[0]
    by_id = {segment.id: segment for segment in made.segments}
    places = [by_id[run.segment].frame_indices[run.first] for run in first.known]
    assert places == [0, first.end - 1]
    assert [segment.id for segment in made.final_segments] == [s.id for s in with_picture.final_segments]
    assert len(with_picture.final_segments[0].known) == 1


def test_a_draft_is_by_a_model_that_makes_videos_of_words_too(make: Any) -> None:
    asked = make.request(mode="infill", draft_model="lighter", **WORDS)
    lighter = able(make, model="lighter")
    made = plan(asked, able(make), draft=lighter)
    assert made.draft is not None
    assert made.draft.model == "lighter"
    needs_a_picture = able(make, model="lighter", takes=ABLE - {"text_alone"})
    with pytest.raises(CannotRun, match="draft model lighter makes no video of words alone"):
        plan(asked, able(make), draft=needs_a_picture)


def test_over_a_draft_every_frame_of_it_is_refined(make: Any) -> None:
    made: Plan = make.plan(able(make), mode="refine", **WORDS)
    keyframes = [s for s in made.segments if s.level == "keyframes"]
    assert [run.first for segment in keyframes for run in segment.sources] == [0] * len(keyframes)
    first = made.final_segments[0]
    assert next((run.segment, run.first) for run in first.sources) == (keyframes[0].id, 0)
    assert made.strength == pytest.approx(0.3)


def test_each_of_several_prompts_is_a_shot(make: Any) -> None:
    made: Plan = make.plan(able(make), **(WORDS | {"prompts": ("a ship", "a harbour", "a gull")}))
    assert [(shot.start, shot.end, shot.prompt) for shot in made.shots] == [
        (0, 13, "a ship"),
        (13, 27, "a harbour"),
        (27, 40, "a gull"),
    ]
    by_default: Plan = make.plan(able(make), **(WORDS | {"prompts": ("a", "b"), "num_frames": None}))
    assert by_default.num_frames == 2 * 4 * 8


def test_a_model_that_needs_a_picture_says_so_and_which_do_not(make: Any) -> None:
    with pytest.raises(CannotRun, match=r"makes no video of words alone; give an image.*take text_alone"):
        make.plan(make.spec(), **WORDS)


def test_a_model_that_goes_on_from_no_frame_makes_one_window_a_shot(make: Any) -> None:
    takes = frozenset({"text", "text_alone", "video"})
    spec = able(make, takes=takes, frames=FrameRule(max_frames=48), trained_windows=(8,))
    made: Plan = make.plan(spec, **WORDS)
    assert (made.mode, made.window_frames, len(made.segments)) == ("chain", 40, 1)
    assert "window 40: synthetic goes on from no frame, and a shot is one window" in made.notes
    shots: Plan = make.plan(spec, **(WORDS | {"prompts": ("a", "b"), "num_frames": 60}))
    assert [segment.num_frames for segment in shots.segments] == [30, 30]
    assert make.plan(spec, **(WORDS | {"num_frames": 6})).window_frames == 8
    for asked, said in (({"num_frames": 49}, "a window has 48"), ({"window_frames": 8}, "a window has 8")):
        with pytest.raises(CannotRun, match=rf"can be given no frame to go on from.*{said}"):
            make.plan(spec, **(WORDS | asked))
    with pytest.raises(CannotRun, match=r"takes none; use chain|needs a model that takes a last image"):
        make.plan(spec, mode="infill", **WORDS)


def test_what_can_be_chosen_is_told_of_words_too(make: Any) -> None:
    told = choices(able(make), [make.worker("a/0")], make.request(**WORDS))
    assert (512, 512) in [(size.width, size.height) for size in told.sizes]
    assert [mode.mode for mode in told.modes if mode.runnable] == ["chain", "refine", "infill"]
