"""The memory of a process that renders: measured, capped, and running out of it told by one error.

Nothing of models enters, and torch is imported only where CUDA is meant.
"""

from __future__ import annotations

from nodes.engines.memory.process_memory import peak_rss_bytes, reset_peak_rss
from nodes.engines.memory.vram import (
    cap_process,
    held_on_card_bytes,
    out_of_memory_is_ours,
    peak_bytes,
    reset_peak,
    use_expandable_segments,
)

__all__ = [
    "cap_process",
    "held_on_card_bytes",
    "out_of_memory_is_ours",
    "peak_bytes",
    "peak_rss_bytes",
    "reset_peak",
    "reset_peak_rss",
    "use_expandable_segments",
]
