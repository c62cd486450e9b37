"""What makes frames between frames in place of optical flow, where a machine's owner has weights for it.

A network and what reads its weights enter; when frames are made, and where never, ``stitching.interpolation``
says.
"""

from __future__ import annotations

from nodes.interpolation.choice import check_chosen, chosen

__all__ = ["check_chosen", "chosen"]
