"""A plan in a terminal."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from farm.planning.plan import Plan
from farm.reporting.plans import print_plan, print_segments, widest
from farm.scheduling.forecast import quote


def told(make: Any, plan: Plan, *vrams: float, draining: bool = False, on_a_farm: bool = False) -> list[str]:
    state = make.state(make.joined(*(make.worker(f"n{i}/gpu0", vram) for i, vram in enumerate(vrams))))
    for worker in state.workers.values():
        worker.draining = draining
    out = io.StringIO()
    print_plan(plan, quote(state, plan, 0.0), on_a_farm=on_a_farm, shown_on=Console(file=out, width=80))
    return out.getvalue().splitlines()


def test_a_plan_is_five_lines_and_what_was_chosen_or_changed(make: Any) -> None:
    plan = make.plan(num_frames=40)
    lines = told(make, plan, 24)
    assert [line.split()[0] for line in lines[:5]] == ["video", "how", "where", "time", "next"]
    assert lines[0].endswith(f"{plan.width}x{plan.height} at {plan.fps} fps")
    assert f"mode {plan.mode}: {len(plan.segments)} segments" in lines[1]
    assert f"n0/gpu0 ({len(plan.segments)} segments" in lines[2]
    assert "an estimate" in lines[3]
    assert "`farm render`" in lines[4]
    assert "`farm submit`" in told(make, plan, 24, on_a_farm=True)[4]
    for note in plan.notes:
        assert lines.count(note) == 1
    assert any("their speed is an estimate" in line for line in lines[5:])


def test_a_plan_says_who_takes_no_part_and_why(make: Any) -> None:
    plan = make.plan()
    where = told(make, plan, 24, 0.1, 0.1, 0.1, 0.1, 0.1)[2]
    assert "; n1/gpu0 has 0.10 GiB, the smallest rung" in where
    assert where.endswith("; 1 more")
    drained = told(make, plan, 24, draining=True)
    assert drained[2] == "where  no worker that is here; n0/gpu0 is draining"
    assert drained[3] == "time   not known"


def test_a_plan_says_how_much_of_it_can_be_done_at_once(make: Any) -> None:
    chain = make.plan(mode="chain", num_frames=60)
    free = make.plan(make.spec(random_access=True), mode="independent", num_frames=60)
    assert widest(chain) == 1
    assert "one after the other" in told(make, chain, 24)[1]
    assert widest(free) == len(free.segments) > 1
    assert f"up to {len(free.segments)} at once" in told(make, free, 24)[1]


def test_every_segment_is_told_with_what_a_window_needs(make: Any) -> None:
    plan, out = make.plan(num_frames=40), io.StringIO()
    print_segments(plan, Console(file=out, width=160))
    lines = out.getvalue().splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(plan.segments)]] == [s.id for s in plan.segments]
    assert any(line.startswith("a window on cuda: resident ") for line in lines)
    assert f"windows of {plan.window_frames} frames, overlap {plan.overlap_frames}" in lines[-1]
