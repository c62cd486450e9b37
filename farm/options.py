"""Reading what people type: sizes, amounts of memory, lists of workers, output paths."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from farm.capabilities import GIB, Worker
from farm.engine_spec import MODES
from farm.errors import CannotRun, InvalidInput
from farm.media import FrameRate
from farm.presets import PREVIEW_STEPS, apply

#: CPU workers of a machine without cards, where it has the cores: a photo's windows then render side by side.
#: Each holds the model; more of them would have too little memory each.
NUM_CPU_WORKERS = 2

_UNITS = {"B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_frame_rate: TypeAdapter[Fraction] = TypeAdapter(FrameRate)


def parse_size(text: str) -> tuple[int, int]:
    """``512x512`` -> (width, height)."""
    found = re.fullmatch(r"\s*(\d{1,6})\s*[xX×]\s*(\d{1,6})\s*", text)
    if not found:
        raise InvalidInput(f"size is {text!r}, expected WIDTHxHEIGHT such as 512x512", param="size")
    return int(found[1]), int(found[2])


def parse_fps(text: str) -> Fraction:
    """``8``, ``29.97`` or ``30000/1001``."""
    try:
        return _frame_rate.validate_python(text)
    except ValidationError:
        raise InvalidInput(
            f"fps is {text!r}, expected a number such as 8 or 30000/1001", param="fps"
        ) from None


def parse_bytes(text: str, *, param: str = "vram-limit") -> int:
    """``12GiB``, ``12GB``, ``800MiB`` -> bytes."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    unit = _UNITS.get(found[2].upper()) if found else None
    if not found or unit is None:
        raise InvalidInput(f"{param} is {text!r}, expected an amount such as 12GiB or 800MiB", param=param)
    amount = round(float(found[1]) * unit)
    if not 0 < amount <= 1024 * GIB:
        raise InvalidInput(f"{param} is {text!r}, expected more than 0 and at most 1024GiB", param=param)
    return amount


def cpu_workers(
    text: str,
    *,
    node: str,
    address: str,
    vram_limit_bytes: int | None = None,
    price_per_hour: float | None = None,
) -> list[Worker]:
    """``12GiB,12GiB,8GiB`` -> CPU workers of this machine with those memory budgets.

    The machine's price is shared evenly.
    """
    amounts = [parse_bytes(part, param="workers") for part in text.split(",")]
    if len(amounts) > 64:
        raise InvalidInput(
            f"got {len(amounts)} workers, at most 64 are started on a machine", param="workers"
        )
    return [
        Worker(
            id=f"{node}/cpu{i}",
            node=node,
            address=address,
            kind="cpu",
            device_name="CPU",
            vram_bytes=min(amount, vram_limit_bytes or amount),
            price_per_hour=None if price_per_hour is None else price_per_hour / len(amounts),
        )
        for i, amount in enumerate(amounts)
    ]


def shared_cpu(cpu: Worker, cores: int) -> list[Worker]:
    """The CPU of a machine without cards as the workers it is by default: each has an even share of it."""
    count = min(NUM_CPU_WORKERS, cores)
    price = cpu.price_per_hour
    share = {
        "vram_bytes": cpu.vram_bytes // count,
        "price_per_hour": None if price is None else price / count,
    }
    return [cpu.model_copy(update={"id": f"{cpu.node}/cpu{i}", **share}) for i in range(count)]


def node_name(name: str | None = None) -> str:
    """A name fit for ids: given, or the machine's own."""
    cleaned = re.sub(r"[^a-z0-9-]+", "-", (name or socket.gethostname().split(".")[0]).lower()).strip("-")
    return cleaned[:32] or "node"


def request_options(
    *,
    prompts: Sequence[str],
    negative_prompt: str,
    model: str,
    mode: str,
    seconds: float | None,
    frames: int | None,
    fps: str | None,
    size: str | None,
    window: int | None,
    overlap: int | None,
    steps: int | None,
    guidance: float | None,
    strength: float | None,
    seed: int,
    priority: int,
    preview: bool = False,
    preset: str | None = None,
) -> dict[str, Any]:
    """The fields of a ``JobRequest`` but its inputs, from the command line's words.

    Raises:
        InvalidInput: a mode, a size or a preset that is none, or a preview with steps of its own.
    """
    if preview and preset is not None:
        raise InvalidInput(f"--preview and --preset {preset} are both given; give one", param="preset")
    if preview and steps is not None:
        raise InvalidInput(
            f"steps is {steps} and --preview takes {PREVIEW_STEPS}; give one of them", param="steps"
        )
    if mode != "auto" and mode not in MODES:
        raise InvalidInput(f"mode is {mode!r}, expected one of auto, {', '.join(MODES)}", param="mode")
    width, height = (None, None) if size is None else parse_size(size)
    options = {
        "prompts": tuple(prompts) or ("",),
        "negative_prompt": negative_prompt,
        "model": model,
        "mode": mode,
        "seconds": seconds,
        "num_frames": frames,
        "fps": None if fps is None else parse_fps(fps),
        "width": width,
        "height": height,
        "window_frames": window,
        "overlap_frames": overlap,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "strength": strength,
        "seed": seed,
        "priority": priority,
    }
    chosen = "preview" if preview else preset
    return options if chosen is None else apply(chosen, options)


def check_price(price_per_hour: float | None) -> None:
    """Refuse what an hour of a machine cannot cost."""
    if price_per_hour is not None and not 0 <= price_per_hour < float("inf"):
        raise InvalidInput(f"price_per_hour is {price_per_hour}, expected 0 or more", param="price_per_hour")


def check_listen(address: str, port: int) -> None:
    """Refuse, before anything is started, an address that a server could not listen on.

    Raises:
        InvalidInput: no port number.
        CannotRun: the port is taken, or the address is not this machine's.
    """
    if not 1 <= port <= 65535:
        raise InvalidInput(f"port is {port}, expected 1 to 65535", param="port")
    try:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((address, port))
    except OSError as error:
        raise CannotRun(
            f"{address}:{port} cannot be listened on ({error.strerror}); choose another --port or --listen"
        ) from error


def check_output(path: Path, inputs: Sequence[Path] = ()) -> None:
    """Refuse an output that could not be written in the end, before any work is done.

    The contact sheet, which goes beside the video, must be writable too, and neither may replace an input.
    """
    if path.suffix.lower() != ".mp4":
        raise InvalidInput(f"output is {path}, expected a name that ends in .mp4", param="output")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for target in (path, path.with_suffix(".png")):
            if target.is_dir():
                raise InvalidInput(f"output {target} is a folder; give another name", param="output")
            if target.exists() and any(given.exists() and given.samefile(target) for given in inputs):
                raise InvalidInput(
                    f"output {target} would replace the input of that name; choose another", param="output"
                )
            if target.exists() and not os.access(target, os.W_OK):
                raise InvalidInput(f"output {target} is write-protected; choose another name", param="output")
            # Only trying tells of a full disk, a quota, a read-only mount or too long a name.
            tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".writing-{target.name}").close()
    except OSError as error:
        raise InvalidInput(
            f"output {path} cannot be written ({error.strerror}); choose another place", param="output"
        ) from error
