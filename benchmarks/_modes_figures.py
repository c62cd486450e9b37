"""The figures of benchmarks/modes.py: summaries of rows, simulated times, and contact sheets."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks._modes_videos import FORMS, JUDGED, MADE, Row
from benchmarks.held_out import PHOTOGRAPHS
from farm.planning.plan import Plan, Segment
from farm.planning.predict import Runner, all_of, longest_path, outline, simulate

#: Cards of the simulation.
CARDS = 4
#: On the sheets: pixels of a frame at most and of the text beside it, and cases at most.
SHEET_FRAME_PX, SHEET_TEXT_PX, SHEET_CASES = 160, 170, 4
Cases = Mapping[str, Mapping[int, Row]]


def summary(rows: list[Row], plans: Mapping[int, Mapping[str, Plan]], num_frames: int) -> Row:
    """Over the cases that are done in every way: all, and in parts."""
    by = {made: {row["case"]: row for row in rows if row["made"] == made} for made in MADE}
    cases = sorted(set.intersection(*(set(found) for found in by.values())))
    if not cases:
        return {"cases": 0}

    def parts(chosen: list[int]) -> Row:
        return {"cases": len(chosen), **{made: figures(by, made, chosen) for made in MADE}}

    camera = by["camera"]
    return {
        "cases": len(cases),
        "all": parts(cases),
        "photographs": parts([n for n in cases if camera[n]["picture"] in PHOTOGRAPHS]),
        "procedural": parts([n for n in cases if camera[n]["picture"] not in PHOTOGRAPHS]),
        "by_motion": {m: parts([n for n in cases if camera[n]["motion"] == m]) for m in JUDGED},
        "time": times(rows, plans, num_frames),
    }


def figures(by: Cases, made: str, chosen: list[int]) -> Row | None:
    """One way's figures over these cases, beside the camera's of the same."""
    found = [by[made][n] for n in chosen]
    if not found:
        return None
    filmed, kept = ([by[truth][n] for n in chosen] for truth in ("camera", "autoencoder"))

    def beside(truths: list[Row], part: int) -> float:
        ratios = [
            r["sharpness"][part] / max(t["sharpness"][part], 1e-3) for r, t in zip(found, truths, strict=True)
        ]
        return round(statistics.median(ratios), 3)

    beyond = [abs(r["lightness_drift"] - t["lightness_drift"]) for r, t in zip(found, filmed, strict=True)]
    result: Row = {
        "followed": _mean(found, lambda r: r["followed"]),
        "windows_followed": _share(found, "windows_followed", "windows"),
        "speed": _mean(found, lambda r: r["speed"]),
        "lightness_drift": _mean(found, lambda r: abs(r["lightness_drift"])),
        "lightness_drift_beyond_camera": round(float(np.mean(beyond)), 3),
        "lightness_drift_beyond_camera_worst": round(max(beyond), 3),
        "colour_drift": _mean(found, lambda r: math.hypot(*r["colour_drift"])),
        # Of the Laplacian's variance, medians over videos: the last two seconds, and the whole.
        "detail_at_the_end_beside_camera": beside(filmed, 1),
        "detail_at_the_end_beside_autoencoder": beside(kept, 1),
        "detail_beside_autoencoder": beside(kept, 2),
    }
    if made in FORMS:
        gates = Counter[str]()
        for row in found:
            gates.update(row["failed_gates"])
        jerks = [ratio for row in found for ratio in row["flow_jerk_ratios"]]
        result |= {
            "seams": sum(r["seams"] for r in found),
            "seams_passed": _share(found, "seams_passed", "seams"),
            "failed_gates": dict(gates.most_common()),
            "flow_jerk_ratio_median": round(statistics.median(jerks), 3),
            "flow_jerk_ratio_p90": round(float(np.percentile(jerks, 90)), 3),
        }
    return result


def times(rows: list[Row], plans: Mapping[int, Mapping[str, Plan]], num_frames: int) -> Row:
    """Work and longest path relative to chain's, and the time of four cards relative to one's: by the median
    seconds of segments that are alike.
    """
    alike: dict[tuple[str, int, bool], list[float]] = {}
    alone = [row for row in rows if row.get("alone")] or rows
    for row in (row for row in alone if row["made"] in FORMS):
        for segment in plans[num_frames][row["made"]].segments:
            if segment.level != "text":
                alike.setdefault(_kind(segment), []).append(row["segments_s"][segment.id])
    seconds = {kind: statistics.median(each) for kind, each in alike.items()}
    a_frame = seconds[max(seconds, key=lambda kind: kind[1])] / max(kind[1] for kind in seconds)

    def cost(segment: Segment) -> float:
        return seconds.get(_kind(segment), segment.num_frames * a_frame)  # a prompt takes none

    found: Row = {
        "segment_s": {f"{k[0]} {k[1]} frames{', over' if k[2] else ''}": v for k, v in seconds.items()}
    }
    for length, by_form in plans.items():
        chain_s = [longest_path(by_form["chain"], cost), sum(map(cost, by_form["chain"].segments))]
        found[f"{length} frames"] = {
            form: {
                "critical_path_s": round(longest_path(plan, cost), 2),
                "work_s": round(sum(map(cost, plan.segments)), 2),
                "critical_path_over_chain": round(longest_path(plan, cost) / chain_s[0], 3),
                "work_over_chain": round(sum(map(cost, plan.segments)) / chain_s[1], 3),
                f"{CARDS}_cards_over_one": round(_on(plan, cost, CARDS) / _on(plan, cost, 1), 3),
                f"{CARDS}_cards_over_chain_on_one": round(
                    _on(plan, cost, CARDS) / _on(by_form["chain"], cost, 1), 3
                ),
            }
            for form, plan in by_form.items()
        }
    return found


def _kind(segment: Segment) -> tuple[str, int, bool]:
    """Segments of one kind take as long as each other."""
    return segment.level, segment.num_frames, bool(segment.sources)


def _on(plan: Plan, cost: Callable[[Segment], float], cards: int) -> float:
    drawn = outline(plan)
    costs = tuple(max(cost(sample), 1e-6) for sample in drawn.samples)
    return simulate(drawn, all_of(drawn), [Runner(costs)] * cards).end


def _share(rows: list[Row], part: str, whole: str) -> float:
    return round(sum(r[part] for r in rows) / max(sum(r[whole] for r in rows), 1), 4)


def _mean(rows: list[Row], figure: Callable[[Row], float]) -> float:
    return round(float(np.mean([figure(r) for r in rows])), 4)


def print_figures(found: Row) -> None:
    print(f"{found['cases']} cases in every way")
    for part in ("all", "photographs", "procedural"):
        if not found["cases"] or not found[part]["cases"]:
            continue
        ways: dict[str, Any] = {made: found[part][made] for made in MADE}
        print(
            f"\n{part + ', ' + str(found[part]['cases']) + ' cases':42}"
            + "".join(f"{made:>14}" for made in MADE)
        )
        for name in ways["chain"]:
            cells = (ways[made].get(name, "-") for made in MADE)
            print(
                f"{name:42}" + "".join(f"{cell if not isinstance(cell, dict) else '':>14}" for cell in cells)
            )
        print({made: ways[made].get("failed_gates") for made in FORMS})
    for length, by_form in found.get("time", {}).items():
        print(f"\n{length}")
        for form, figures_of in by_form.items():
            print(f"  {form:24}{figures_of}")


def contact_sheets(rows: list[Row], strips: Path, path: Path) -> None:
    """A JPEG: of some cases a row for each way, every so many frames."""
    by = {(row["case"], row["made"]): row for row in rows}
    cases = [n for n in dict.fromkeys(row["case"] for row in rows) if all((n, made) in by for made in MADE)]
    chosen = _mixed(cases, by)
    if not chosen:
        return
    lines = []
    for number in chosen:
        for made in MADE:
            strip = Image.open(strips / f"{number} {made}.png")
            scale = min(1.0, SHEET_FRAME_PX / strip.height)
            small = strip.resize(
                (round(strip.width * scale), round(strip.height * scale)), Image.Resampling.LANCZOS
            )
            lines.append((by[number, made], small))
    width = SHEET_TEXT_PX + max(strip.width for _, strip in lines)
    sheet = Image.new("RGB", (width, sum(strip.height for _, strip in lines)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    top = 0
    for row, strip in lines:
        sheet.paste(strip, (SHEET_TEXT_PX, top))
        text = f"{row['made']}\n{row['picture']}\n{row['motion']}, {row['pace']}"
        text += f"\n{row['windows_followed']}/{row['windows']} windows follow"
        if "seams" in row:
            text += f"\n{row['seams_passed']}/{row['seams']} seams pass"
        draw.text((4, top + 4), text, "darkgreen" if row["followed"] else "firebrick", font)
        top += strip.height
    sheet.save(path, quality=88)


def _mixed(cases: list[int], by: Mapping[tuple[int, str], Row]) -> list[int]:
    """Cases of different motions and pictures, as far as there are."""
    chosen: list[int] = []
    for number in cases:
        row = by[number, "camera"]
        seen = [by[n, "camera"] for n in chosen]
        if all(row["motion"] != s["motion"] and row["picture"] != s["picture"] for s in seen):
            chosen.append(number)
    return chosen[:SHEET_CASES]
