"""``cluster.yaml``: the machines of a farm, as their owner describes them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import ValidationError

from farm.errors import InvalidInput
from farm.options import parse_bytes
from farm.values import Value


class Described(Value):
    """What can be said of any machine."""

    #: Every worker of the machine is capped at this.
    vram_limit: str | None = None
    #: Of the whole machine, in the owner's currency.
    price_per_hour: float | None = None


class HeadMachine(Described):
    """The machine that coordinates."""

    #: Where the other machines reach it.
    listen: str = "127.0.0.1"
    port: int = 8470
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
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InvalidInput(f"{path} is no YAML: {reason}", param="cluster") from error
    try:
        cluster = ClusterFile.model_validate(parsed or {})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidInput(f"{path}: {where}: {first['msg']}", param="cluster") from error
    names = [machine.name for machine in cluster.machines]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(f"{path}: machine {twice[0]} is described twice", param="cluster")
    described: list[HeadMachine | Machine] = [cluster.head, *cluster.machines]
    for machine in described:
        for amount in machine.workers if isinstance(machine.workers, list) else []:
            parse_bytes(amount, param="workers")
        if machine.vram_limit:
            parse_bytes(machine.vram_limit)
        if machine.price_per_hour is not None and machine.price_per_hour < 0:
            raise InvalidInput(f"{path}: price_per_hour is {machine.price_per_hour}, expected 0 or more")
    return cluster
