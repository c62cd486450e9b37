"""A tiny I2VGen-XL model folder with the classes and the files of the real one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from farm.capabilities.engine_spec import EngineSpec

if TYPE_CHECKING:
    from nodes.engines.i2vgen_xl.engine import I2VGenXL


@pytest.fixture(scope="session")
def tiny_spec(tiny_i2vgen_xl_folder: Path) -> EngineSpec:
    """The spec for a card: its rungs place and stream components on a CPU just as well."""
    from nodes.engines.i2vgen_xl.spec import i2vgen_xl_spec

    return i2vgen_xl_spec(tiny_i2vgen_xl_folder, model="tiny")


@pytest.fixture(scope="session")
def _tiny_engine(tiny_spec: EngineSpec, tiny_i2vgen_xl_folder: Path) -> I2VGenXL:
    """On a CPU; shared, since every test leaves it usable."""
    from nodes.engines.i2vgen_xl.engine import I2VGenXL

    return I2VGenXL(tiny_spec, source=tiny_i2vgen_xl_folder, device="cpu")


@pytest.fixture
def tiny_engine(_tiny_engine: I2VGenXL) -> I2VGenXL:
    """The shared engine at its first rung."""
    _tiny_engine.load("resident")
    return _tiny_engine


@pytest.fixture(scope="session")
def tiny_image() -> NDArray[np.uint8]:
    """A smooth picture (32, 48, 3), without symmetry."""
    ramp = np.linspace(0, 255, 48, dtype=np.float32)[None, :, None]
    rows = np.linspace(0, 1, 32, dtype=np.float32)[:, None, None]
    return (ramp * rows + np.array([10, 40, 90]) * (1 - rows)).astype(np.uint8)
