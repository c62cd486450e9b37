"""What a worker can hold, and whether a task fits there: requirements against capabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pydantic import TypeAdapter

from farm.capabilities.engine_spec import DeviceKind, Rung
from farm.values import Value

GIB = 1024**3
#: Left to the desktop and the driver on every card.
DESKTOP_RESERVE_BYTES = 400 * 2**20


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


class Lack(Value):
    """What a worker is short of for a task, at the rung that comes nearest to it."""

    worker_id: str
    rung: Rung
    #: ``machine``: of the machine's memory, where weights wait beside a card; ``worker``: of its own.
    memory: Literal["worker", "machine"]
    has_bytes: int
    needs_bytes: int

    @property
    def lacking_bytes(self) -> int:
        return self.needs_bytes - self.has_bytes

    def __str__(self) -> str:
        has, needs = gib(self.has_bytes), gib(self.needs_bytes)
        if self.memory == "machine":
            return (
                f"{self.worker_id} has {has} of its machine's memory, rung {self.rung} keeps {needs} of "
                "weights there"
            )
        if has == needs:
            needs = f"more than {has}"  # a byte more, once memory ran out there
        return f"{self.worker_id} has {has}, the smallest rung ({self.rung}) needs {needs}"


def lack(needs: Mapping[Rung, Need], worker: Worker) -> Lack | None:
    """What this worker is short of, or None when a rung fits."""
    if fitting_rungs(needs, worker):
        return None
    in_worker = {rung: need for rung, need in needs.items() if need.vram_bytes <= worker.vram_bytes}
    if in_worker and worker.host_bytes is not None:
        rung, need = min(in_worker.items(), key=lambda item: item[1].host_bytes)
        return Lack(
            worker_id=worker.id,
            rung=rung,
            memory="machine",
            has_bytes=worker.host_bytes,
            needs_bytes=need.host_bytes,
        )
    rung, need = min(needs.items(), key=lambda item: item[1].vram_bytes)
    return Lack(
        worker_id=worker.id,
        rung=rung,
        memory="worker",
        has_bytes=worker.vram_bytes,
        needs_bytes=need.vram_bytes,
    )


def why_not(needs: Mapping[Rung, Need], worker: Worker) -> str | None:
    """Why no rung fits this worker, or None when one does."""
    found = lack(needs, worker)
    return None if found is None else str(found)


def workers_from_json(text: str) -> list[Worker]:
    """The workers of a node, as its Ray was told when it started."""
    return TypeAdapter(list[Worker]).validate_json(text)
