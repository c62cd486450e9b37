"""Commands about this machine: what it has and can run, and its place in a farm."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter

from farm.capabilities import Worker
from farm.cli.farm_meant import Farm, Json, StateFolder, Token, client_unless_here
from farm.client import FarmClient
from farm.errors import FarmError, InvalidInput
from farm.machines import (
    DEFAULT_PORTS,
    HeadMachine,
    check_price,
    node_name,
    parse_ports,
)
from farm.reporting import ModelReport, console, report_json
from farm.request import model_here
from farm.state import default_state_folder

machine = typer.Typer()
_REPORTS = TypeAdapter(list[ModelReport])

Workers = Annotated[
    str | None,
    typer.Option(
        help="CPU workers with these memory budgets, such as 12GiB,12GiB,8GiB.",
        show_default="the cards, or the CPU shared by two",
    ),
]
VramLimit = Annotated[
    str | None,
    typer.Option(
        help="Cap every worker at this amount, such as 8GiB; or each card at its own: 8GiB,11GiB.",
        show_default="all that is free",
    ),
]
PortRange = Annotated[str, typer.Option(help="TCP ports on which other machines reach this one.")]


@machine.command()
def join(
    address: Annotated[str, typer.Argument(help="HOST:PORT, as `farm up` prints it.")],
    token: Annotated[
        str | None,
        typer.Option(
            help="One-time token; - reads it from standard input. Who comes back needs none.",
            show_default="the one kept from before",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="A file that holds the token, or a key for nodes.", show_default="none"),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What to call this machine.", show_default="its host name")
    ] = None,
    workers: Workers = None,
    vram_limit: VramLimit = None,
    price_per_hour: Annotated[
        float | None,
        typer.Option(help="Of this machine, in a currency of your own.", show_default="not known"),
    ] = None,
    ports: PortRange = str(DEFAULT_PORTS),
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Add this machine's cards to a farm. Ctrl-C leaves it after the current segment."""
    from nodes.machine import member

    check_price(price_per_hour)
    folder = state or default_state_folder()
    url = member.farm_url(address)
    given = sys.stdin.readline().strip() if token == "-" else token
    if token_file is not None:
        given = _token_in(token_file, given)
    node = node_name(name)

    def describe(own_address: str) -> list[Worker]:
        return workers_here(
            workers, vram_limit, name=name, address=own_address, price_per_hour=price_per_hour
        )

    joined = member.join(url, given, node=node, describe=describe, state=folder, ports=parse_ports(ports))
    process = joined.begin()
    said = f"{node} is in the farm at {url}; Ctrl-C or `farm leave` takes it out"
    console.tell({"node": node, "url": url}, said, as_json=as_json)
    # Not the handler of Ctrl-C: a shell starts what runs in its background with that one ignored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        joined.stay(process, partial(console.say, console=console.err))
    except KeyboardInterrupt:
        console.err.print("leaving after the current segment")
        with suppress(FarmError):
            member.leave(folder)


def _token_in(path: Path, given: str | None) -> str:
    """
    Raises:
        InvalidInput: a token was given besides, or the file holds none.
    """
    if given is not None:
        raise InvalidInput("--token and --token-file are two ways to say one thing; give one", param="token")
    try:
        held = path.read_text().strip()
    except (OSError, UnicodeError) as error:
        raise InvalidInput(
            f"{path} cannot be read ({error}); the farm writes it where it is started with --node-key",
            param="token_file",
        ) from error
    if not held:
        raise InvalidInput(f"{path} is empty; it should hold a token of the farm", param="token_file")
    return held


@machine.command()
def leave(state: StateFolder = None, as_json: Json = False) -> None:
    """Take this machine out of its farm after its current segment."""
    from nodes.machine import member

    left = member.leave(state or default_state_folder(), for_good=True)
    said = f"{left.node} has left the farm at {left.url}"
    console.tell({"node": left.node, "url": left.url}, said, as_json=as_json)


@machine.command()
def doctor(
    as_json: Json = False,
    workers: Workers = None,
    vram_limit: VramLimit = None,
    security: Annotated[bool, typer.Option("--security", help="Who can reach what of the farm.")] = False,
    joining: Annotated[
        str | None,
        typer.Option(
            "--join", help="HOST:PORT of a farm: whether this machine could join it.", show_default="none"
        ),
    ] = None,
    ports: PortRange = str(DEFAULT_PORTS),
    state: StateFolder = None,
) -> None:
    """Check this machine: installation, cards, what each can render, and the way to a farm."""
    from nodes.hosting import examine, examine_joining, examine_security

    if security:
        findings = examine_security(state or default_state_folder())
    elif joining is not None:
        findings = examine_joining(joining, parse_ports(ports))
    else:
        findings = examine(workers_here(workers, vram_limit), state or default_state_folder())
    if as_json:
        console.print_json([finding.model_dump() for finding in findings])
    else:
        width = max(len(f.subject) for f in findings)
        for f in findings:  # each one line, however long: some are commands to be pasted
            console.say(f"{'ok' if f.ok else 'PROBLEM':7}  {f.subject:{width}}  {f.text}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(3)


@machine.command()
def health(state: StateFolder = None, as_json: Json = False) -> None:
    """Whether the farm that is up here, or this machine's place in one, is well; status 3 if not."""
    from nodes.machine import health as health_of

    found = health_of(state or default_state_folder())
    console.tell(found.model_dump(), found.text, as_json=as_json)
    if not found.is_well:
        raise typer.Exit(3)


@machine.command()
def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Only these, by name or folder, with every size and window that was tried; or one of "
            "`accept NAME`: accept the licence of a model once for this farm; `fetch NAME`: have its files "
            "on this machine; `add FOLDER|FILE`: keep a model, or weights, of yours for the farm; "
            "`remove NAME`: from this machine."
        ),
    ] = None,
    workers: Workers = None,
    vram_limit: VramLimit = None,
    farm: Farm = None,
    token: Token = None,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """List the models, and what the farm that is up, or else this machine, can run of them."""
    client = client_unless_here((workers, vram_limit), farm, token, state)
    if names and names[0] == "accept":
        _accept_licences(names[1:], client, state or default_state_folder(), as_json)
        return
    if names and names[0] in _KEEPING:
        if farm is not None:
            raise InvalidInput(
                f"`farm models {names[0]}` is about this machine: type it on that of the farm", param="farm"
            )
        if not names[1:]:
            raise InvalidInput(f"`farm models {names[0]}` wants {_KEEPING[names[0]]}", param="model")
        for name in names[1:]:
            _keep(names[0], name, state or default_state_folder(), as_json)
        return
    wanted = [model_here(name) for name in names or []]
    if client is not None:
        found = _REPORTS.validate_python(client.models_runnable(wanted))
    else:
        from nodes.hosting import models_here

        here = workers_here(workers, vram_limit)
        found = models_here(here, state or default_state_folder(), wanted)
    if as_json:
        console.print_json([report_json(report) for report in found])
    else:
        console.print_models(found, every=bool(wanted))


#: What is done with models of this machine, and to what.
_KEEPING = {"fetch": "the name of a model", "add": "a folder or a file", "remove": "the name of a model"}


def _keep(verb: str, name: str, folder: Path, as_json: bool) -> None:
    """Fetch, add or remove one model."""
    from nodes.hosting import add_model, fetch_model, remove_model

    if verb == "add":
        added, place = add_model(Path(name))
        told, said = {"model": added, "path": str(place)}, f"{added} is kept in {place}"
    elif verb == "remove":
        remove_model(name)
        told, said = {"model": name, "removed": "true"}, f"{name} is not on this machine any more"
    else:
        try:
            with console.FetchView() as view:
                place = fetch_model(name, folder, view.told)
        except KeyboardInterrupt:
            console.say(f"what has come of {name} is kept; the same command goes on", console.err)
            raise
        told, said = {"model": name, "path": str(place)}, f"{name} is here, in {place}"
    console.tell(told, said, as_json=as_json)


def _accept_licences(names: list[str], client: FarmClient | None, folder: Path, as_json: bool) -> None:
    """Accept the licences of these models once, for the farm that is up or for its state folder."""
    if not names:
        raise InvalidInput("`farm models accept` wants the name of a model", param="model")
    accepted = []
    for name in names:
        if client is not None:
            licence = client.accept_licence(name)["licence"]["name"]
        else:
            from nodes.hosting import accept_licence

            licence = accept_licence(name, folder)
        accepted.append({"model": name, "licence": licence})
    said = "\n".join(f"the {each['licence']} is accepted for this farm" for each in accepted)
    console.tell(accepted, said, as_json=as_json)


def workers_here(workers: str | None, vram_limit: str | None, **about: Any) -> list[Worker]:
    """As that of ``nodes.machine``, which takes its time to be imported."""
    from nodes.machine import workers_here as found_here

    return found_here(workers, vram_limit, **about)


def head_workers(head: HeadMachine, name: str | None) -> list[Worker]:
    """The workers of the machine that coordinates."""
    if head.workers == "none":
        return []
    asked = ",".join(head.workers) if isinstance(head.workers, list) else head.workers
    return workers_here(
        None if asked == "auto" else asked, head.vram_limit, name=name, price_per_hour=head.price_per_hour
    )
