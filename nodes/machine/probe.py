"""What this machine has: its cards by NVML, or its CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from farm.capabilities import DESKTOP_RESERVE_BYTES, GIB, Worker
from farm.errors import CannotRun
from farm.machines import cpu_workers, limited, node_name, parse_limits, shared_cpu
from nodes.machine.host_cores import usable_cores
from nodes.machine.host_memory import host_memory

#: Cards that are not named there are left alone.
VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"
#: Share of the memory that is free now that a CPU worker may use.
CPU_MEMORY_SHARE = 0.8
#: Share of it in which weights that are not on a card may wait, all cards of the machine together.
HOST_MEMORY_SHARE = 0.8


def probe(*, node: str, address: str, price_per_hour: float | None = None) -> list[Worker]:
    """One worker for every NVIDIA card, or one CPU worker where there is none. The price is shared evenly.

    Raises:
        CannotRun: a card is there and cannot be asked.
    """
    workers = list(_cards(node, address))
    if workers:
        host_bytes = round(host_memory().available_bytes * HOST_MEMORY_SHARE) // len(workers)
        workers = [worker.model_copy(update={"host_bytes": host_bytes}) for worker in workers]
    else:
        workers = [_cpu(node, address)]
    share = None if price_per_hour is None else price_per_hour / len(workers)
    return [worker.model_copy(update={"price_per_hour": share}) for worker in workers]


def workers_here(
    workers: str | None = None,
    vram_limit: str | None = None,
    *,
    name: str | None = None,
    address: str = "127.0.0.1",
    price_per_hour: float | None = None,
) -> list[Worker]:
    """This machine's workers: as asked for, or its cards, or its CPU shared out.

    Args:
        workers: CPU workers with these memory budgets, such as ``12GiB,8GiB``.
        vram_limit: What every worker is capped at, such as ``8GiB``, or each in turn (cards as nvidia-smi
            lists them), such as ``8GiB,11GiB``.
        name: Of this machine; None: its host name.
        address: Of this machine.
        price_per_hour: Of this machine.

    Raises:
        InvalidInput: one of them is none.
    """
    limits = None if vram_limit is None else parse_limits(vram_limit)
    about: dict[str, Any] = {
        "node": node_name(name),
        "address": address,
        "price_per_hour": price_per_hour,
    }
    if workers is not None:
        found = cpu_workers(workers, **about)
    else:
        found = probe(**about)
        if found[0].kind == "cpu":
            found = shared_cpu(found[0], usable_cores())
    return found if limits is None else limited(found, limits)


def _cards(node: str, address: str) -> Iterator[Worker]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                if _is_meant(index, pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index))):
                    yield _card(index, node, address)
            except pynvml.NVMLError as error:
                raise CannotRun(
                    f"card {index} of this machine does not answer ({error}); "
                    "see nvidia-smi, or give --workers for the CPU"
                ) from error
    finally:
        pynvml.nvmlShutdown()


def _is_meant(index: int, uuid: str) -> bool:
    """Whether a card is among those that ``CUDA_VISIBLE_DEVICES`` names: by number, as nvidia-smi counts, or
    by the beginning of its UUID. What stands behind a name of no card counts for CUDA neither."""
    named = os.environ.get(VISIBLE_VARIABLE)
    if named is None:
        return True
    for each in (part.strip() for part in named.split(",")):
        if (each.isdecimal() and int(each) == index) or (each.startswith("GPU-") and uuid.startswith(each)):
            return True
        if not each.isdecimal() and not each.startswith("GPU-"):
            return False
    return False


def _card(index: int, node: str, address: str) -> Worker:
    import pynvml

    card = pynvml.nvmlDeviceGetHandleByIndex(index)
    uuid = pynvml.nvmlDeviceGetUUID(card)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(card)
    return Worker(
        id=f"{node}/gpu-{uuid.removeprefix('GPU-')[:8]}",
        node=node,
        address=address,
        kind="cuda",
        device_name=pynvml.nvmlDeviceGetName(card),
        vram_bytes=pynvml.nvmlDeviceGetMemoryInfo(card).total - DESKTOP_RESERVE_BYTES,
        device_uuid=uuid,
        compute_capability=f"{major}.{minor}",
        driver=pynvml.nvmlSystemGetDriverVersion(),
    )


def _cpu(node: str, address: str) -> Worker:
    return Worker(
        id=f"{node}/cpu0",
        node=node,
        address=address,
        kind="cpu",
        device_name=f"CPU, {usable_cores()} threads",
        vram_bytes=max(GIB // 2, round(host_memory().available_bytes * CPU_MEMORY_SHARE)),
    )
