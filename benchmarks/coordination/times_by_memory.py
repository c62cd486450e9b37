"""What cards of 6 to 24 GB render of every engine before anything was timed on them: sizes, rungs, seconds.

    python benchmarks/coordination/times_by_memory.py

For one card alone, of the speed that the farm takes an unknown card to have, and 64 GiB of memory in the
machine: the largest size in the longest window that runs, and the model's own size, as `farm models` tells.
Folders are those of settings_by_memory.py, headers alone.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.coordination.settings_by_memory import CARDS_GIB, GIB, folders
from farm.capabilities import EngineSpec, Worker
from farm.planning import nothing_asked
from farm.scheduling import RunnableSetting, runnable
from nodes.engines.table import spec_of

RESULTS = Path(__file__).resolve().parents[1] / "results" / "times_by_memory.json"


def told(setting: RunnableSetting | None) -> dict[str, object] | None:
    """One setting, as a row of the results."""
    if setting is None or setting.holder is None:
        return None
    return {
        "size": f"{setting.width}x{setting.height}",
        "window": setting.window_frames,
        "mode": setting.mode,
        "rung": setting.holder.rung,
        "need_gib": round(setting.holder.need_bytes / GIB, 2),
        "host_gib": round(setting.holder.host_bytes / GIB, 1),
        "seconds_for_a_second": round(setting.seconds_per_second or 0.0, 1),
    }


def on_card(spec: EngineSpec, card_gib: int) -> dict[str, object]:
    """What one card of that memory runs."""
    memory = {"vram_bytes": card_gib * GIB, "host_bytes": 64 * GIB}
    card = Worker(id="a/cuda0", node="a", kind="cuda", device_name="card", **memory)
    found = runnable(spec, [card])
    media = nothing_asked(spec).inputs[0]
    own = [s for s in found.settings if (s.width, s.height) == (media.width, media.height) and s.runs]
    return {"largest": told(found.largest), "own": told(own[-1] if own else None)}


def main() -> None:
    tables: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as home:
        for name, folder in folders(Path(home)).items():
            spec = spec_of(str(folder))
            tables[name] = {f"{gib} GiB": on_card(spec, gib) for gib in CARDS_GIB}
            print(name)
            for card, found in tables[name].items():
                print(f"  {card}: {found}", flush=True)
    RESULTS.write_text(json.dumps({"cards_gib": CARDS_GIB, "models": tables}, indent=1) + "\n")


if __name__ == "__main__":
    main()
