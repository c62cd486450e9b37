"""Examples of what a farm can run of a model, and what may be chosen."""

from __future__ import annotations

from typing import Any

from dashboard.api.examples import MODEL

RUNNABLE: dict[str, Any] = {
    **{name: MODEL[name] for name in ("model", "engine", "takes", "source", "licence")},
    "here": True,
    "held_by": [],
    "disk_bytes": 31251842,
    "runnable": {
        "model": "tiny_wan",
        "engine": "wan",
        "settings": [
            {
                "width": 128,
                "height": 128,
                "window_frames": 17,
                "mode": "infill",
                "holder": {
                    "worker_id": "attic/cuda0",
                    "rung": "resident",
                    "need_bytes": 1122024361,
                    "host_bytes": 0,
                },
                "num_workers": 2,
                "seconds_per_second": 1.4,
                "measured": False,
                "lack": None,
                "why_not": None,
            },
            {
                "width": 1024,
                "height": 1024,
                "window_frames": 17,
                "mode": None,
                "holder": None,
                "num_workers": 0,
                "seconds_per_second": None,
                "measured": False,
                "lack": {
                    "worker_id": "attic/cuda0",
                    "rung": "stream",
                    "memory": "worker",
                    "has_bytes": 12884901888,
                    "needs_bytes": 15139759718,
                },
                "why_not": "attic/cuda0 has 12.00 GiB, the smallest rung (stream) needs 14.10 GiB",
            },
        ],
    },
    "why_not": None,
}
RUNNABLE["runnable"]["largest"], RUNNABLE["runnable"]["next_larger"] = RUNNABLE["runnable"]["settings"]

_TOO_LARGE = "attic/cuda0 has 12.00 GiB, the smallest rung (offloaded) needs 14.10 GiB"
CHOICES: dict[str, Any] = {
    "sizes": [
        {"width": 256, "height": 256, "need_bytes": 1782579200, "runnable": True, "reason": None},
        {"width": 1024, "height": 1024, "need_bytes": 15139759718, "runnable": False, "reason": _TOO_LARGE},
    ],
    "windows": [{"window_frames": 16, "need_bytes": 1782579200, "runnable": True, "reason": None}],
    "modes": [{"mode": "refine", "need_bytes": 1782579200, "runnable": True, "reason": None}],
    "presets": [
        {
            "preset": "standard",
            "width": 512,
            "height": 512,
            "window_frames": 16,
            "runnable": True,
            "reason": None,
        }
    ],
}
