"""An engine that returns at once, for measuring what the farm itself costs.

No pixels are made and no weights are read here.
"""

from __future__ import annotations

from nodes.engines.instant.family import FAMILY

__all__ = ["FAMILY"]
