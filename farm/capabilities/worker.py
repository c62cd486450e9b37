"""What a worker can hold, and whether a task fits there: requirements against capabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

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
    #: Its share of the machine's memory, where weights that are not on the card wait; None: nobody told. A
    #: CPU worker has all of its memory in ``vram_bytes``.
    host_bytes: int | None = None
    device_uuid: str | None = None
    compute_capability: str | None = None
    driver: str | None = None
    #: Price of an hour of this worker, in the cluster file's currency; None when unknown.
    price_per_hour: float | None = None


def gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.2f} GiB"


class Need(NamedTuple):
    """What a task holds on a worker at one rung."""

    vram_bytes: int
    #: Of the machine's memory, beside a card: the weights that wait there.
    host_bytes: int = 0


def fits(need: Need, worker: Worker) -> bool:
    """Whether a worker has what a task needs; memory that nobody told counts as enough."""
    host = worker.host_bytes
    return need.vram_bytes <= worker.vram_bytes and (host is None or need.host_bytes <= host)


def fitting_rungs(needs: Mapping[Rung, Need], worker: Worker) -> list[Rung]:
    """The rungs at which a task fits this worker, in the order of ``needs`` (fastest first)."""
    return [rung for rung, need in needs.items() if fits(need, worker)]


def why_not(needs: Mapping[Rung, Need], worker: Worker) -> str | None:
    """Why no rung fits this worker, or None when one does."""
    if fitting_rungs(needs, worker):
        return None
    on_card = {rung: need for rung, need in needs.items() if need.vram_bytes <= worker.vram_bytes}
    if on_card and worker.host_bytes is not None:
        rung, need = min(on_card.items(), key=lambda item: item[1].host_bytes)
        return (
            f"{worker.id} has {gib(worker.host_bytes)} of its machine's memory, rung {rung} keeps "
            f"{gib(need.host_bytes)} of weights there"
        )
    rung, need = min(needs.items(), key=lambda item: item[1].vram_bytes)
    has, needs_at_least = gib(worker.vram_bytes), gib(need.vram_bytes)
    if has == needs_at_least:
        needs_at_least = f"more than {has}"  # a byte more, once memory ran out there
    return f"{worker.id} has {has}, the smallest rung ({rung}) needs {needs_at_least}"


def workers_from_json(text: str) -> list[Worker]:
    """The workers of a node, as its Ray was told when it started."""
    return TypeAdapter(list[Worker]).validate_json(text)
