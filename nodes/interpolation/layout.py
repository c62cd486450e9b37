"""The file of RIFE 4.6: the names and shapes of its tensors, and whether a file has them. Without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from farm.errors import CannotRun, InvalidInput
from nodes.engines.folders import StoredTensor, stored_tensors

#: Channels of its blocks; each sees pictures at an eighth, a quarter, half and the whole of their size.
WIDTHS = (192, 128, 96, 64)
#: Channels that each block reads: two pictures and the moment; behind the first also a mask, and two flows.
INPUTS = (7, 12, 12, 12)
_CONVOLUTIONS = 8
#: What tools put before every name.
_PREFIXES = re.compile(r"^(module\.|flownet\.)+")
_CONVERT = (
    "import sys, torch; from safetensors.torch import save_file; "
    "w = torch.load(sys.argv[1], 'cpu', weights_only=True); "
    "save_file({k: v.contiguous() for k, v in w.items()}, sys.argv[2])"
)
_PICKLES = (".pkl", ".pth", ".pt", ".ckpt", ".bin")


def layout() -> dict[str, tuple[int, ...]]:
    """The shapes of the network's tensors, by name."""
    found: dict[str, tuple[int, ...]] = {}
    for i, (inputs, width) in enumerate(zip(INPUTS, WIDTHS, strict=True)):
        half = width // 2
        layers: dict[str, tuple[int, ...]] = {
            "conv0.0.0": (half, inputs, 3, 3),
            "conv0.1.0": (width, half, 3, 3),
            **{f"convblock.{n}.conv": (width, width, 3, 3) for n in range(_CONVOLUTIONS)},
            "lastconv.0": (width, 24, 4, 4),
        }
        for name, shape in layers.items():
            found[f"block{i}.{name}.weight"] = shape
            found[f"block{i}.{name}.bias"] = (24 if name == "lastconv.0" else shape[0],)
        for n in range(_CONVOLUTIONS):
            found[f"block{i}.convblock.{n}.beta"] = (1, width, 1, 1)
    return found


def tensors_of(path: Path) -> Mapping[str, StoredTensor]:
    """The network's tensors in a file, by their names in ``layout``.

    Raises:
        InvalidInput: it is a pickle, or of another network.
        CannotRun: it is not there, or damaged.
    """
    if path.suffix in _PICKLES:
        raise InvalidInput(
            f"{path} is a pickle, which can hold a program and is never opened; convert it: "
            f'python -c "{_CONVERT}" {path} {path.with_suffix(".safetensors")}'
        )
    if not path.is_file():
        raise CannotRun(f"{path} is no file: give the weights of RIFE 4.6")
    found = {_PREFIXES.sub("", name): tensor for name, tensor in stored_tensors(path).items()}
    wrong = [n for n, shape in layout().items() if n not in found or tuple(found[n].shape) != shape]
    if wrong:
        has = f"has {tuple(found[wrong[0]].shape)} there" if wrong[0] in found else "lacks it"
        raise InvalidInput(
            f"{path} is not of RIFE 4.6, whose {wrong[0]} is {layout()[wrong[0]]}: it {has}; give that "
            "version"
        )
    return {name: found[name] for name in layout()}
