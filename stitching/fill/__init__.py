"""Clips between two given frames: how they get from the one to the other.

Measures of frames enter; what follows from one is for others to decide.
"""

from __future__ import annotations

from stitching.fill.measures import fill_report

__all__ = ["fill_report"]
