"""An example of what a farm can run of a model."""

from __future__ import annotations

from typing import Any

from dashboard.api.examples import MODEL

RUNNABLE: dict[str, Any] = {
    **{name: MODEL[name] for name in ("model", "engine", "takes", "source", "licence")},
    "here": True,
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
