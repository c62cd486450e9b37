"""The ``farm`` command: the only file that may bring all rooms together."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from farm.capabilities import Worker
from farm.cli.key_commands import keys
from farm.cli.remote_commands import (
    Farm,
    Force,
    JobId,
    Json,
    StateFolder,
    Token,
    client_of,
    client_or_none,
    follow,
    remote,
    say_notes,
    submitted,
    target_of,
)
from farm.cli.storage_commands import Adopt, Ignore, keeping, settled
from farm.cli.video_options import describes_video
from farm.errors import FarmError, InvalidInput, PortClosed
from farm.machines import (
    DEFAULT_PORTS,
    ClusterFile,
    HeadMachine,
    check_listen,
    check_price,
    cpu_workers,
    node_name,
    parse_bytes,
    parse_ports,
    read_cluster_file,
    shared_cpu,
)
from farm.outputs import Outputs
from farm.reporting import LogFormat, console, logging_to
from farm.scheduling import quote
from farm.state import State, WorkerState, default_state_folder

app = typer.Typer(
    name="farm",
    help="A render farm for AI video: one long video, made by many small unequal cards.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Inputs = Annotated[
    list[Path],
    # What cannot be read is told from the rest by the check of the files, not by typer.
    typer.Argument(help="An image, several images (a storyboard), or a video.", readable=False),
]
Workers = Annotated[
    str | None, typer.Option(help="CPU workers with these memory budgets, such as 12GiB,12GiB,8GiB.")
]
VramLimit = Annotated[str | None, typer.Option(help="Cap every worker at this amount, such as 8GiB.")]
PortRange = Annotated[str, typer.Option(help="TCP ports on which other machines reach this one.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="The video, by default the next free out.mp4; a contact sheet goes beside it."
    ),
]


@app.command()
@describes_video
def render(
    inputs: Inputs,
    options: dict[str, Any],
    output: Output = None,
    force: Force = False,
    workers: Workers = None,
    vram_limit: VramLimit = None,
    state: StateFolder = None,
    adopt: Adopt = False,
    ignore: Ignore = False,
    as_json: Json = False,
) -> None:
    """Render a video on this machine alone: starts everything, leaves nothing running."""
    target = target_of(output, _files(inputs, options), force=force)
    here = _workers(workers, vram_limit)
    folder = settled(state, adopt, ignore, for_render=True)
    from nodes.hosting import render_here

    told, done = _run(render_here(inputs, options, here, folder, target))
    _print_finished(told, done, as_json)


@app.command()
@describes_video
def plan(
    inputs: Inputs,
    options: dict[str, Any],
    workers: Workers = None,
    vram_limit: VramLimit = None,
    as_json: Json = False,
) -> None:
    """Show how a video would be made, without making it."""
    from nodes.hosting import described, planned
    from nodes.machine import scratch_folder

    here = _workers(workers, vram_limit)
    with scratch_folder() as folder:
        request = described(inputs, options, folder)
    made = planned(request, here)
    if as_json:
        console.print_json(made.model_dump(mode="json"))
    else:
        console.print_plan(made)
        state = State(workers={worker.id: WorkerState(worker) for worker in here})
        console.print_quote(quote(state, made, time.monotonic()))


@app.command()
@describes_video
def submit(
    inputs: Inputs,
    options: dict[str, Any],
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="With --watch: the video.")] = None,
    force: Force = False,
    farm: Farm = None,
    token: Token = None,
    state: StateFolder = None,
) -> None:
    """Give a job to a farm that is up; prints the job's id."""
    if output is not None and not watch:
        raise InvalidInput("--output goes with --watch; without it, `farm watch` fetches", param="output")
    target = None if output is None else target_of(output, _files(inputs, options), force=force)
    client = client_of(farm, token, state)
    job_id = submitted(client, inputs, options)
    if watch:
        follow(client, job_id, target)
    else:
        say_notes(client, job_id)


@app.command()
def retry(
    job_id: JobId,
    output: Output = None,
    force: Force = False,
    workers: Workers = None,
    vram_limit: VramLimit = None,
    farm: Farm = None,
    token: Token = None,
    state: StateFolder = None,
    adopt: Adopt = False,
    ignore: Ignore = False,
    as_json: Json = False,
) -> None:
    """Continue a job that failed, was stopped or waits: on the farm that is up, else here alone."""
    target = target_of(output, force=force)
    client = client_or_none(farm, token, state)
    if client:
        client.retry(job_id)
        follow(client, job_id, target)
        return
    folder = settled(state, adopt, ignore, for_render=True)
    from nodes.hosting import retry_here

    here = _workers(workers, vram_limit)
    told, done = _run(retry_here(job_id, here, folder, target))
    _print_finished(told, done, as_json)


@app.command()
def up(
    listen: Annotated[str | None, typer.Option(help="Address for other machines; default: none.")] = None,
    port: Annotated[int | None, typer.Option(help="Of the API.")] = None,
    ports: Annotated[
        str | None, typer.Option(help="TCP ports for other machines, such as 8471-8599.")
    ] = None,
    workers: Annotated[str | None, typer.Option(help="auto, none, or such as 12GiB,8GiB.")] = None,
    vram_limit: VramLimit = None,
    cluster: Annotated[Path | None, typer.Option(help="A cluster.yaml that says it all.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call this machine.")] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name browsers may use for this farm, such as a proxy's.")
    ] = None,
    log_format: Annotated[
        LogFormat, typer.Option(help="Of standard error: warnings as text, or everything as JSON lines.")
    ] = "text",
    state: StateFolder = None,
    adopt: Adopt = False,
    ignore: Ignore = False,
) -> None:
    """Keep a farm running. Ctrl-C ends it; its jobs go on at the next `farm up`."""
    from dashboard.app import create_app
    from dashboard.server import serve
    from nodes.hosting import keep_up

    described = read_cluster_file(cluster) if cluster else ClusterFile()
    budgets = workers.split(",") if workers not in (None, "auto", "none") else workers
    chosen = {"listen": listen, "port": port, "ports": ports, "workers": budgets, "vram_limit": vram_limit}
    given = {key: value for key, value in chosen.items() if value is not None}
    if allow_host:
        given["allowed_hosts"] = allow_host
    described = described.model_copy(update={"head": described.head.model_copy(update=given)})
    here = _head_workers(described.head, name)
    check_listen(described.head.listen, described.head.port)
    parse_ports(described.head.ports)
    folder = settled(state, adopt, ignore)
    with suppress(KeyboardInterrupt), logging_to(folder, log_format):  # the way a farm is meant to end
        _run(keep_up(described, here, folder, create_app, serve))


@app.command()
def join(
    address: Annotated[str, typer.Argument(help="HOST:PORT, as `farm up` prints it.")],
    token: Annotated[
        str | None,
        typer.Option(help="One-time token; - reads it from standard input. Who comes back needs none."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call this machine.")] = None,
    workers: Workers = None,
    vram_limit: VramLimit = None,
    price_per_hour: Annotated[float | None, typer.Option(help="Of this machine.")] = None,
    ports: PortRange = str(DEFAULT_PORTS),
    state: StateFolder = None,
) -> None:
    """Add this machine's cards to a farm. Ctrl-C leaves it after the current segment."""
    from nodes.machine import member

    check_price(price_per_hour)
    folder = state or default_state_folder()
    url = member.farm_url(address)
    given = sys.stdin.readline().strip() if token == "-" else token
    node = node_name(name)

    def describe(own_address: str) -> list[Worker]:
        return _workers(workers, vram_limit, name=name, address=own_address, price_per_hour=price_per_hour)

    joined = member.join(url, given, node=node, describe=describe, state=folder, ports=parse_ports(ports))
    process = joined.begin()
    console.say(f"{node} is in the farm at {url}; Ctrl-C or `farm leave` takes it out")
    # Not the handler of Ctrl-C: a shell starts what runs in its background with that one ignored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        joined.stay(process, partial(console.err.print, markup=False))
    except KeyboardInterrupt:
        console.err.print("leaving after the current segment")
        with suppress(FarmError):
            member.leave(folder)


@app.command()
def leave(state: StateFolder = None) -> None:
    """Take this machine out of its farm after its current segment."""
    from nodes.machine import member

    left = member.leave(state or default_state_folder(), for_good=True)
    console.out.print(f"{left.node} has left the farm at {left.url}", markup=False)


@app.command()
def models(as_json: Json = False) -> None:
    """List the models that can be asked for by name."""
    from nodes.engines import known_models

    found = known_models()
    if as_json:
        console.print_json(found)
        return
    rows = ((m["model"], m["engine"], ", ".join(m["takes"]), m["source"]) for m in found)
    console.print_rows(("model", "engine", "takes", "from"), rows)


@app.command()
def doctor(
    as_json: Json = False,
    workers: Workers = None,
    vram_limit: VramLimit = None,
    security: Annotated[bool, typer.Option("--security", help="Who can reach what of the farm.")] = False,
    joining: Annotated[
        str | None, typer.Option("--join", help="HOST:PORT of a farm: whether this machine could join it.")
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
        findings = examine(_workers(workers, vram_limit))
    if as_json:
        console.print_json([finding.model_dump() for finding in findings])
    else:
        rows = (("ok" if f.ok else "PROBLEM", f.subject, f.text) for f in findings)
        console.print_rows(("", "what", "finding"), rows)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(3)


def _workers(
    workers: str | None,
    vram_limit: str | None,
    *,
    name: str | None = None,
    address: str = "127.0.0.1",
    price_per_hour: float | None = None,
) -> list[Worker]:
    """This machine's workers: as asked for, or its cards, or its CPU shared out."""
    from nodes.machine import probe

    node = node_name(name)
    limit = None if vram_limit is None else parse_bytes(vram_limit)
    if workers is None:
        found = probe(node=node, address=address, vram_limit_bytes=limit, price_per_hour=price_per_hour)
        return found if found[0].kind == "cuda" else shared_cpu(found[0], os.cpu_count() or 1)
    return cpu_workers(
        workers, node=node, address=address, vram_limit_bytes=limit, price_per_hour=price_per_hour
    )


def _head_workers(head: HeadMachine, name: str | None) -> list[Worker]:
    """The workers of the machine that coordinates."""
    if head.workers == "none":
        return []
    asked = ",".join(head.workers) if isinstance(head.workers, list) else head.workers
    return _workers(
        None if asked == "auto" else asked, head.vram_limit, name=name, price_per_hour=head.price_per_hour
    )


def _files(inputs: list[Path], options: dict[str, Any]) -> list[Path]:
    """All that a video is made from."""
    return [*inputs, *filter(None, [options["audio"]])]


def _print_finished(report: dict[str, Any], done: Outputs, as_json: bool) -> None:
    if as_json:
        console.print_json(report)
        console.err.print(f"video: {done.video}, contact sheet: {done.sheet}", markup=False)
    else:
        console.print_report(report)
        console.out.print(f"video: {done.video}, contact sheet: {done.sheet}", markup=False)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end; Ctrl-C and SIGTERM cancel it, and it cleans up."""

    async def main() -> Any:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        return await task

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def main() -> None:
    """Entry point: every error a user can meet is one line, and never a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files are bytes, not always text
    try:
        # typer hands the status of an early exit back instead of leaving with it.
        sys.exit(app(standalone_mode=False))
    except FarmError as error:
        console.print_error(error.message)
        for line in error.commands if isinstance(error, PortClosed) else ():
            console.err.print(f"  {line}", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        if wrong := error.format_message():  # empty where a bare command showed its help
            place = getattr(error, "ctx", None)
            command = place.command_path if place else "farm"
            console.print_error(f"{wrong.rstrip('.')} (`{command} --help` shows how)")
        sys.exit(2)


for command in (*remote.registered_commands, *keeping.registered_commands):
    app.registered_commands.append(command)
app.add_typer(keys, name="keys")
