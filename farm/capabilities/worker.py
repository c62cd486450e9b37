"""What a worker can hold, and whether a task fits there: requirements against capabilities."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import TypeAdapter

from farm.capabilities.engine_spec import DeviceKind, Rung
from farm.values import Value

GIB = 1024**3


class Worker(Value):
    """One accelerator of a node, or a share of its CPU: one actor."""

    #: ``node/slot``; the same after a restart of the machine.
    id: str
    node: str
    #: Address of the node, for people.
    address: str = ""
    kind: DeviceKind
    device_name: str
    #: What a task may hold: the card's memory less a reserve, or the limit its owner set.
    vram_bytes: int
    device_uuid: str | None = None
    compute_capability: str | None = None
    driver: str | None = None
    #: Price of an hour of this worker, in the cluster file's currency; None when unknown.
    price_per_hour: float | None = None


def gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.2f} GiB"


def fitting_rungs(needs: Mapping[Rung, int], worker: Worker) -> list[Rung]:
    """The rungs at which a task fits this worker, in the order of ``needs`` (fastest first)."""
    return [rung for rung, need in needs.items() if need <= worker.vram_bytes]


def why_not(needs: Mapping[Rung, int], worker: Worker) -> str | None:
    """Why no rung fits this worker, or None when one does."""
    if fitting_rungs(needs, worker):
        return None
    rung, need = min(needs.items(), key=lambda item: item[1])
    has, needs_at_least = gib(worker.vram_bytes), gib(need)
    if has == needs_at_least:
        needs_at_least = f"more than {has}"  # a byte more, once memory ran out there
    return f"{worker.id} has {has}, the smallest rung ({rung}) needs {needs_at_least}"


def workers_from_json(text: str) -> list[Worker]:
    """The workers of a node, as its Ray was told when it started."""
    return TypeAdapter(list[Worker]).validate_json(text)
