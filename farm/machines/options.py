"""Reading what owners say of their machines: amounts of memory, workers, names, prices, addresses."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from farm.addresses import family_of, host_port, resolved
from farm.capabilities import GIB, Worker
from farm.errors import CannotRun, InvalidInput

#: CPU workers of a machine without cards, where it has the cores: a photo's windows then render side by side.
#: Each holds the model; more of them would have too little memory each.
NUM_CPU_WORKERS = 2

_UNITS = {"B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


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


def parse_limits(text: str) -> list[int]:
    """``8GiB`` (of every worker) or ``8GiB,11GiB`` (of each) -> bytes."""
    return [parse_bytes(part) for part in text.split(",")]


def limited(workers: Sequence[Worker], limits: Sequence[int]) -> list[Worker]:
    """Workers that hold no more than their limit: one for all of them, or one each in their order.

    Raises:
        InvalidInput: there are as many as neither.
    """
    if len(limits) not in (1, len(workers)):
        names = ", ".join(worker.device_name for worker in workers)
        raise InvalidInput(
            f"vram-limit has {len(limits)} amounts, and this machine {len(workers)} workers ({names}): give "
            "one for all, or one each in this order",
            param="vram-limit",
        )
    each = list(limits) * len(workers) if len(limits) == 1 else limits
    return [
        worker.model_copy(update={"vram_bytes": min(worker.vram_bytes, limit)})
        for worker, limit in zip(workers, each, strict=True)
    ]


def cpu_workers(
    text: str,
    *,
    node: str,
    address: str,
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
            vram_bytes=amount,
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


def check_pages(url: str) -> str:
    """The host of a URL at which browsers find a farm's pages; a path is not part of it.

    Raises:
        InvalidInput: it is no such URL.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.port is None or parts.port else None
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or parts.path.strip("/") or parts.query:
        raise InvalidInput(
            f"pages is {url!r}, expected a URL without a path, such as https://farm.example.org",
            param="pages",
        )
    return host


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
    found = resolved(address)
    try:
        with socket.socket(family_of(found)) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((found, port))
    except OSError as error:
        raise CannotRun(
            f"{host_port(address, port)} cannot be listened on ({error.strerror}); "
            "choose another --port or --listen"
        ) from error
