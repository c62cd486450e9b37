"""I2VGen-XL and models of its classes.

Its own loop, conditioning and config facts enter; what another family could use belongs to ``common``.
"""

from __future__ import annotations

from nodes.engines.i2vgen_xl.family import FAMILY

__all__ = ["FAMILY"]
