"""By which weights a machine's owner wants frames interpolated: variables set before the farm starts."""

from __future__ import annotations

import os
from pathlib import Path

from farm.errors import InvalidInput
from nodes.interpolation.layout import tensors_of
from stitching.interpolation import Between

#: A safetensors file with the weights of RIFE 4.6.
WEIGHTS_VARIABLE = "REELFARM_RIFE"
#: ``cpu``, or ``cuda`` where a card of the machine that joins has memory to spare beside its worker.
DEVICE_VARIABLE = "REELFARM_RIFE_DEVICE"


def check_chosen() -> None:
    """Refuse weights that cannot be used, from their header: a video would be told so at its end.

    Raises:
        InvalidInput, CannotRun: as ``chosen``.
    """
    if (path := _weights()) is not None:
        tensors_of(path)
        _device()


def chosen() -> Between | None:
    """What makes frames between two; None: nothing is chosen, and optical flow does.

    Raises:
        InvalidInput: the file is a pickle or of another network, or the device is none.
        CannotRun: it cannot be read.
    """
    path = _weights()
    if path is None:
        return None
    from nodes.interpolation.rife import Rife  # imports torch

    return Rife(tensors_of(path), device=_device())


def _weights() -> Path | None:
    named = os.environ.get(WEIGHTS_VARIABLE)
    return Path(named) if named else None


def _device() -> str:
    device = os.environ.get(DEVICE_VARIABLE, "cpu")
    if device not in ("cpu", "cuda"):
        raise InvalidInput(f"{DEVICE_VARIABLE} is {device!r}, expected cpu or cuda")
    return device
