"""``cluster.yaml``: the machines of a farm, as their owner describes them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import ValidationError

from farm.complaints import complaint
from farm.errors import InvalidInput
from farm.machines.options import check_pages, check_price, node_name, parse_bytes, parse_limits
from farm.machines.ports import DEFAULT_PORTS, parse_ports
from farm.values import Value


class Described(Value):
    """What can be said of any machine."""

    #: Every worker of the machine is capped at this.
    vram_limit: str | None = None
    #: Of the whole machine, in the owner's currency.
    price_per_hour: float | None = None
    #: TCP ports on which the other machines reach it.
    ports: str = str(DEFAULT_PORTS)


class HeadMachine(Described):
    """The machine that coordinates."""

    #: Where the other machines reach it.
    listen: str = "127.0.0.1"
    port: int = 8470
    #: Names besides its own under which browsers reach it, such as a proxy's.
    allowed_hosts: tuple[str, ...] = ()
    #: URL at which browsers find the pages, where that is not its own address: a proxy's, a container's.
    pages: str | None = None
    #: "auto": its cards (or CPU); "none"; or memory budgets of CPU workers.
    workers: Literal["auto", "none"] | list[str] = "auto"


class Machine(Described):
    """A machine that joins, started by SSH."""

    name: str
    address: str
    ssh_user: str | None = None
    ssh_port: int = 22
    ssh_key: Path | None = None
    #: The ``farm`` command over there.
    farm: str = "farm"
    workers: Literal["auto"] | list[str] = "auto"


class ClusterFile(Value):
    head: HeadMachine = HeadMachine()
    machines: tuple[Machine, ...] = ()


def read_cluster_file(path: Path) -> ClusterFile:
    """Read and check a cluster file.

    Raises:
        InvalidInput: names the file, the entry and what is wrong with it.
    """
    try:
        parsed = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror})", param="cluster") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is no YAML: it is no text in UTF-8", param="cluster") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f": line {mark.line + 1}, column {mark.column + 1} cannot be read"
        raise InvalidInput(f"{path} is no YAML{place}", param="cluster") from error
    try:
        cluster = ClusterFile.model_validate(parsed or {})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise InvalidInput(f"{path}: {where}: {complaint(first)}", param="cluster") from error
    described: list[HeadMachine | Machine] = [cluster.head, *cluster.machines]
    try:
        for machine in described:
            _check(machine)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error.message}", param="cluster") from error
    names = [machine.name for machine in cluster.machines]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(f"{path}: machine {twice[0]} is described twice", param="cluster")
    return cluster


def _check(machine: HeadMachine | Machine) -> None:
    """Refuse what only shows when the machine is started."""
    for amount in machine.workers if isinstance(machine.workers, list) else []:
        parse_bytes(amount, param="workers")
    if machine.vram_limit is not None:
        parse_limits(machine.vram_limit)
    check_price(machine.price_per_hour)
    parse_ports(machine.ports)
    if isinstance(machine, HeadMachine):
        if machine.pages is not None:
            check_pages(machine.pages)
        return
    # It is part of ids and of a file's name, and the machine must come back under the same one.
    if machine.name != node_name(machine.name):
        raise InvalidInput(
            f"machine name is {machine.name!r}, expected small letters, digits and hyphens, at most 32"
        )
    target = machine.ssh_user or machine.address
    if not machine.address or target.startswith("-"):  # ssh would take it for an option
        raise InvalidInput(f"address of {machine.name} is {target!r}, expected a host's name or IP")
    if not 1 <= machine.ssh_port <= 65535:
        raise InvalidInput(f"ssh_port of {machine.name} is {machine.ssh_port}, expected 1 to 65535")
