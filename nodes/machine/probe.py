"""What this machine has: its cards by NVML, or its CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator

from farm.capabilities import GIB, Worker
from farm.errors import CannotRun
from nodes.machine.host_memory import host_memory

#: Left to the desktop and the driver on every card.
DESKTOP_RESERVE_BYTES = 400 * 2**20
#: Share of the memory that is free now that a CPU worker may use.
CPU_MEMORY_SHARE = 0.8
#: Share of it in which weights that are not on a card may wait, all cards of the machine together.
HOST_MEMORY_SHARE = 0.8


def probe(
    *, node: str, address: str, vram_limit_bytes: int | None = None, price_per_hour: float | None = None
) -> list[Worker]:
    """One worker for every NVIDIA card, or one CPU worker where there is none.

    ``vram_limit_bytes`` caps every worker. The price is shared evenly.

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
    return [
        worker.model_copy(
            update={
                "vram_bytes": min(worker.vram_bytes, vram_limit_bytes or worker.vram_bytes),
                "price_per_hour": share,
            }
        )
        for worker in workers
    ]


def _cards(node: str, address: str) -> Iterator[Worker]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                yield _card(index, node, address)
            except pynvml.NVMLError as error:
                raise CannotRun(
                    f"card {index} of this machine does not answer ({error}); "
                    "see nvidia-smi, or give --workers for the CPU"
                ) from error
    finally:
        pynvml.nvmlShutdown()


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
        device_name=f"CPU, {os.cpu_count()} threads",
        vram_bytes=max(GIB // 2, round(host_memory().available_bytes * CPU_MEMORY_SHARE)),
    )
