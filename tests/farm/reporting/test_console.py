"""What a person sees in a terminal, and elsewhere."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from farm.capabilities import LoraFile, Weights
from farm.reporting.console import LookView, print_report, print_rows


def test_brackets_in_a_table_are_text() -> None:
    out = io.StringIO()
    print_rows(("what",), [("[fd00::1]:8470",), ("[red]",)], Console(file=out))
    assert [line.strip() for line in out.getvalue().splitlines()] == ["what", "[fd00::1]:8470", "[red]"]


def test_the_look_at_an_input_is_a_line_for_every_tenth_where_there_is_no_terminal() -> None:
    shown = io.StringIO()
    with LookView(Console(file=shown, width=160)) as view:
        for num_frames, share in ((0, None), (90, 0.05), (200, 0.11), (210, 0.12), (640, 0.35)):
            view.told("a\nlong.mp4", num_frames, share)
    assert shown.getvalue().splitlines() == [
        "looking at a?long.mp4: 200 frames, 10 %",
        "looking at a?long.mp4: 640 frames, 30 %",
    ]


def test_a_report_names_what_the_model_ran_with() -> None:
    weights = Weights(loras=(LoraFile(path=Path("/w/fast.safetensors"), scale=0.5),), format="int8")
    settings = {"model": "m", "weights": weights.model_dump(mode="json"), "draft": {"model": "light"}}
    report = {"segments": [], "seams": [], "workers": {}, "settings": settings}
    report |= {"waiting_for": "", "queue_position": None}
    out = io.StringIO()
    print_report(report | {"totals": {"wall_s": None, "stitch_s": None}}, Console(file=out, width=160))
    assert f"m with {weights}; draft: light" in out.getvalue()
    assert "fast.safetensors" in out.getvalue()


def test_a_report_says_how_long_a_worker_was_idle_and_why() -> None:
    idle = {"loading": 3.0, "dependency": 1.25, "transfer": 0.01}
    row = {"vram_bytes": None, "segments": 2, "busy_s": 9.0}
    report = {"segments": [], "seams": [], "workers": {"a/0": row | {"idle_s": idle}, "b/0": row}}
    report |= {"waiting_for": "", "queue_position": None, "settings": {"model": "m"}}
    out = io.StringIO()
    print_report(report | {"totals": {"wall_s": None, "stitch_s": None}}, Console(file=out, width=160))
    assert "loading 3.0, dependency 1.2" in out.getvalue()
    assert "transfer 0.0" not in out.getvalue()
