"""What the coordinator and Ray's driver say to each other, a line of JSON each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from farm.values import Value


class Start(Value):
    """Whose driver to be: of the Ray at ``address`` (host:port), or of one of its own with these workers."""

    address: str | None = None
    worker_ids: tuple[str, ...] = ()
    #: Ray's files. Short: its sockets live below it, and their paths may have 107 characters.
    temp_dir: Path | None = None


class Employ(Value):
    """Start a worker, or find it again, and have it connect to the coordinator."""

    type: Literal["employ"] = "employ"
    worker_id: str
    #: Counts up; its end is told with it.
    number: int
    node_id: str
    host: str
    port: int
    secret: str


class Kill(Value):
    """End a worker's process, if it has one."""

    type: Literal["kill"] = "kill"
    worker_id: str


class Place(Value):
    """A worker that a living node claims to have."""

    worker_id: str
    node_id: str
    #: Whether it is the coordinator's machine.
    same_machine: bool
    #: Of the node's Ray, as it says itself: where others reach it.
    address: str = ""
    ports: tuple[int, ...] = ()


class Nodes(Value):
    """Told about twice a second."""

    type: Literal["nodes"] = "nodes"
    places: tuple[Place, ...]
    #: Whether the coordinator's own node counts as alive.
    here: bool
    #: Processes whose end is the end of this Ray, of one that the driver has started.
    pids: tuple[int, ...] = ()


class Ended(Value):
    """A worker has ended, or does not serve any more."""

    type: Literal["ended"] = "ended"
    worker_id: str
    number: int


Asked = Employ | Kill
Told = Nodes | Ended
_asked: TypeAdapter[Asked] = TypeAdapter(Annotated[Asked, Field(discriminator="type")])
_told: TypeAdapter[Told] = TypeAdapter(Annotated[Told, Field(discriminator="type")])


def asked(line: bytes) -> Asked:
    return _asked.validate_json(line)


def told(line: bytes) -> Told:
    """
    Raises:
        ValueError: it is nothing a driver says.
    """
    try:
        return _told.validate_json(line)
    except ValidationError as error:
        raise ValueError(f"Ray's driver said what is no message: {line[:200]!r}") from error
