"""The figures of benchmarks/draft_refine.py: summaries of rows, printed, and contact sheets."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks._draft_refine_videos import JUDGED, Row
from benchmarks.held_out import PHOTOGRAPHS, Frames
from farm.planning.plan import Plan
from farm.planning.predict import critical_path

#: On the sheets: pixels of a frame and of the text beside it.
SHEET_FRAME_PX, SHEET_TEXT_PX = 96, 170


def summary(rows: list[Row], plans: dict[str, Plan]) -> Row:
    """Both modes over the cases that are done in both, and the camera over those of them that it filmed."""
    by: dict[str, dict[int, Row]] = {
        made: {r["case"]: r for r in rows if r["made"] == made} for made in ("chain", "refine", "camera")
    }
    cases = sorted(by["chain"].keys() & by["refine"].keys())

    def of(made: str, chosen: list[int]) -> Row | None:
        found = [by[made][n] for n in chosen if n in by[made]]
        if not found:
            return None
        filmed_too = [r for r in found if r["case"] in by["camera"]]
        camera = [by["camera"][r["case"]] for r in filmed_too]
        beyond = [
            abs(r["lightness_drift"] - c["lightness_drift"]) for r, c in zip(filmed_too, camera, strict=True)
        ]
        against = [
            r["sharpness_kept"] / max(c["sharpness_kept"], 1e-3)
            for r, c in zip(filmed_too, camera, strict=True)
        ]
        figures: Row = {
            "videos": len(found),
            "windows_followed": share(found, "windows_followed", "windows"),
            "followed": mean(found, lambda r: r["followed"]),
            "speed": mean(found, lambda r: r["speed"]),
            "lightness_drift": mean(found, lambda r: abs(r["lightness_drift"])),
            "lightness_per_s": mean(found, lambda r: abs(r["lightness_per_s"])),
            "lightness_drift_signed": mean(found, lambda r: r["lightness_drift"]),
            "lightness_drift_beyond_camera": round(float(np.mean(beyond)), 3) if beyond else None,
            "colour_drift": mean(found, lambda r: math.hypot(*r["colour_drift"])),
            "sharpness_kept_median": round(float(np.median([r["sharpness_kept"] for r in found])), 3),
            "sharpness_kept_over_camera_median": round(float(np.median(against)), 3) if against else None,
        }
        if made != "camera":
            gates = Counter[str]()
            for row in found:
                gates.update(row["failed_gates"])
            figures["seams_passed"] = share(found, "seams_passed", "seams")
            figures["seams"] = sum(r["seams"] for r in found)
            figures["failed_gates"] = dict(gates.most_common())
        return figures

    def three(chosen: list[int]) -> Row:
        return {made: of(made, chosen) for made in by}

    differences: Row = {}
    figures: dict[str, Callable[[Row], float]] = {
        "windows_followed": lambda r: r["windows_followed"] / max(r["windows"], 1),
        "followed": lambda r: r["followed"],
        "seams_passed": lambda r: r["seams_passed"] / max(r["seams"], 1),
        "lightness_drift": lambda r: abs(r["lightness_drift"]),
        "sharpness_kept": lambda r: r["sharpness_kept"],
    }
    for name, figure in figures.items():
        paired = np.array([figure(by["refine"][n]) - figure(by["chain"][n]) for n in cases], dtype=float)
        if len(paired) > 1:
            error = float(paired.std(ddof=1) / math.sqrt(len(paired)))
            differences[name] = {
                "refine_less_chain": round(float(paired.mean()), 4),
                "error": round(error, 4),
            }
    whole, time = three(cases), time_alone(by, plans)
    return {
        "cases": len(cases),
        "targets": targets(whole, time),
        "all": whole,
        "time": time,
        "differences": differences,
        "photographs": three([n for n in cases if by["chain"][n]["picture"] in PHOTOGRAPHS]),
        "by_motion": {m: three([n for n in cases if by["chain"][n]["motion"] == m]) for m in JUDGED},
        "by_pace": {p: three([n for n in cases if by["chain"][n]["pace"] == p]) for p in ("slow", "normal")},
    }


def targets(whole: Row, time: Row) -> Row:
    """What refine has to reach beside chain, and whether it does."""
    chain, refine = whole["chain"], whole["refine"]
    if chain is None or refine is None:
        return {}
    measured = time.get("measured", time["predicted"])
    beyond = [figures["lightness_drift_beyond_camera"] for figures in (chain, refine)]
    return {
        "windows followed no worse than 3 points": refine["windows_followed"]
        > chain["windows_followed"] - 0.03,
        "clips followed no worse than 3 points": refine["followed"] > chain["followed"] - 0.03,
        "seams passed no fewer": refine["seams_passed"] >= chain["seams_passed"],
        "lightness drift smaller": refine["lightness_drift"] < chain["lightness_drift"],
        "lightness drift beyond the camera's smaller": None not in beyond and beyond[1] < beyond[0],
        "critical path at most 0.35": measured["critical_path"] <= 0.35,
        "work at most 1.35": measured["work"] <= 1.35,
    }


def time_alone(by: dict[str, dict[int, Row]], plans: dict[str, Plan]) -> Row:
    """Critical path and work of refine relative to chain's: as predicted, and of videos rendered alone."""
    predicted = {
        "critical_path": round(critical_path(plans["refine"]) / critical_path(plans["chain"]), 3),
        "work": round(plans["refine"].mpixel_steps / plans["chain"].mpixel_steps, 3),
    }
    alone = {mode: [r for r in by[mode].values() if r["alone"]] for mode in ("chain", "refine")}
    if not all(alone.values()):
        return {"predicted": predicted}
    seconds = {
        mode: {name: mean(found, lambda r, name=name: r[name]) for name in ("critical_path_s", "work_s")}
        for mode, found in alone.items()
    }
    measured = {
        name: round(seconds["refine"][f"{name}_s"] / seconds["chain"][f"{name}_s"], 3) for name in predicted
    }
    return {"measured": measured, "predicted": predicted, "videos_alone": len(alone["chain"]), **seconds}


def share(rows: list[Row], part: str, whole: str) -> float:
    return round(sum(r[part] for r in rows) / max(sum(r[whole] for r in rows), 1), 4)


def mean(rows: list[Row], figure: Callable[[Row], float]) -> float:
    return round(float(np.mean([figure(r) for r in rows])), 4)


def save(path: Path, part: str, found: Row) -> None:
    """Write one part of the results; the other stays as it is."""
    whole: Row = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(whole | {part: found}, indent=1) + "\n")
    os.replace(new, path)


def print_quality(found: Row) -> None:
    print(f"{found['cases']} cases in both modes, {len(found['failed'])} videos failed")
    whole = found["all"]
    names = [name for name, value in (whole["refine"] or {}).items() if not isinstance(value, dict)]
    print(f"{'':36}{'chain':>10}{'refine':>10}{'camera':>10}")
    for name in names:
        cells = ((whole[made] or {}).get(name) for made in ("chain", "refine", "camera"))
        print(f"{name:36}" + "".join(f"{'-' if cell is None else cell:>10}" for cell in cells))
    print(f"refine less chain: {found['differences']}\nrefine over chain: {found['time']}")
    for name, met in found["targets"].items():
        print(f"{'reached' if met else 'MISSED ':8} {name}")


def contact_sheet(shown: dict[tuple[int, str], tuple[Row, Frames]]) -> Image.Image:
    """Rows chain, refine and camera of each case; every so many frames."""
    keys = sorted(shown, key=lambda key: (key[0], ("chain", "refine", "camera").index(key[1])))
    columns = max(len(frames) for _, frames in shown.values())
    size, left = SHEET_FRAME_PX, SHEET_TEXT_PX
    sheet = Image.new("RGB", (left + columns * size, len(keys) * size), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for line, key in enumerate(keys):
        row, frames = shown[key]
        for column, frame in enumerate(frames):
            small = Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC)
            sheet.paste(small, (left + column * size, line * size))
        text = f"{row['made']}\n{row['picture']}\n{row['motion']}, {row['pace']}"
        text += f"\n{row['windows_followed']}/{row['windows']} windows follow"
        if "seams" in row:
            text += f"\n{row['seams_passed']}/{row['seams']} seams pass"
        draw.text((4, line * size + 4), text, "darkgreen" if row["followed"] else "firebrick", font)
    return sheet
