"""AnimateDiff: models of Stable Diffusion 1.5 with motion modules, given frames by SparseCtrl.

Its own conditioning, U-Net and config facts enter; what another family could use belongs to ``common``.
"""

from __future__ import annotations

from nodes.engines.animatediff.family import FAMILY

__all__ = ["FAMILY"]
