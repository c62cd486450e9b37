"""The commands that talk to a farm that is up; without one, those that can, read the journal instead."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from farm.capabilities import gib
from farm.client import FarmClient
from farm.endpoint import endpoint_at, read_endpoint
from farm.errors import CannotRun, InvalidInput, JobFailed, LicenceNotAccepted
from farm.outputs import DEFAULT_VIDEO, Outputs, outputs
from farm.reporting import (
    console,
    job_report,
    job_summary,
    made_lines,
    print_jobs,
    waits_words,
    workers_seen,
)
from farm.state import JOURNAL_NAME, FolderInUse, default_state_folder, event_adapter, in_use, past

remote = typer.Typer()

StateFolder = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="The farm's state folder.",
        callback=console.aim_at_state,
        show_default="$REELFARM_STATE, or ~/.local/state/reelfarm",
    ),
]
Farm = Annotated[
    str | None,
    typer.Option(
        "--farm",
        help="URL, or HOST:PORT, of a farm elsewhere.",
        callback=console.aim_at_farm,
        show_default="the one that is up here",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token", envvar="REELFARM_TOKEN", help="A key of that farm.", show_default="your own farm's"
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace a video of that name; an input never.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JobId = Annotated[str, typer.Argument(help="As `farm jobs` shows it.")]
Result = TypeVar("Result")
Name = Annotated[str, typer.Argument(help="A node, or one worker as node/slot.")]


def parse_frames(text: str) -> tuple[int, int]:
    """``24:48`` -> (24, 48).

    Raises:
        InvalidInput: it is no such range.
    """
    found = re.fullmatch(r"\s*(\d{1,9})\s*:\s*(\d{1,9})\s*", text)
    if not found or int(found[1]) >= int(found[2]):
        raise InvalidInput(f"frames is {text!r}, expected FIRST:END such as 24:48", param="frames")
    return int(found[1]), int(found[2])


def client_or_none(farm: str | None, token: str | None, state: Path | None) -> FarmClient | None:
    """The farm that is meant: the one named, else the one of the state folder when it is up."""
    if farm is not None:
        known = endpoint_at(farm) if token is None else None
        return FarmClient(farm, token if known is None else known.token)
    endpoint = read_endpoint(state or default_state_folder())
    if endpoint is None:
        return None
    client = FarmClient(endpoint.url, token or endpoint.token)
    return client if client.is_up() else None


def client_unless_here(
    here: Sequence[str | None], farm: str | None, token: str | None, state: Path | None
) -> FarmClient | None:
    """As ``client_or_none``; none where options, ``here``, tell of this machine's own workers.

    Raises:
        InvalidInput: those and a farm elsewhere are both named.
    """
    if all(option is None for option in here):
        return client_or_none(farm, token, state)
    if farm is not None:
        raise InvalidInput(
            "--workers and --vram-limit are of this machine, and --farm is another; give one", param="farm"
        )
    return None


def client_of(farm: str | None, token: str | None, state: Path | None) -> FarmClient:
    client = client_or_none(farm, token, state)
    if client is None:
        if used := in_use(state or default_state_folder()):
            raise used
        raise CannotRun("no farm is up here; start one with `farm up`, or name one with --farm")
    return client


@remote.command()
def jobs(farm: Farm = None, token: Token = None, state: StateFolder = None, as_json: Json = False) -> None:
    """List the jobs, newest first."""
    client = client_or_none(farm, token, state)
    found = list(client.jobs()) if client else _journal_jobs(state or default_state_folder())
    if as_json:
        console.print_json(found)
        return
    print_jobs(found, time.time())


@remote.command()
def report(
    job_id: JobId, farm: Farm = None, token: Token = None, state: StateFolder = None, as_json: Json = False
) -> None:
    """Tell the story of a job: segments, workers, memory, seams, times."""
    client = client_or_none(farm, token, state)
    if client:
        told: dict[str, Any] = client.report(job_id)
    else:
        with past(state or default_state_folder()) as ledger:
            told = job_report(ledger.job(job_id), workers_seen(ledger.journal))
        told |= _waits_for_farm(told, in_use(state or default_state_folder()))
    if as_json:
        console.print_json(told)
    else:
        console.print_report(told)


@remote.command()
def watch(
    job_id: JobId,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Fetch the video when done.", show_default="it is not fetched"),
    ] = None,
    force: Force = False,
    farm: Farm = None,
    token: Token = None,
    state: StateFolder = None,
) -> None:
    """Follow a job until it ends."""
    target = None if output is None else target_of(output, force=force)
    follow(client_of(farm, token, state), job_id, target)


@remote.command()
def cancel(job_id: JobId, farm: Farm = None, token: Token = None, state: StateFolder = None) -> None:
    """Stop a job; what is done is kept, and `farm retry` continues it."""
    client_of(farm, token, state).cancel(job_id)
    console.say(f"{job_id} is cancelled; `farm retry {job_id}` continues it")


@remote.command()
def priority(
    job_id: JobId,
    number: Annotated[int, typer.Argument(help="0 to 100, higher first.")],
    farm: Farm = None,
    token: Token = None,
    state: StateFolder = None,
) -> None:
    """Serve a job sooner, or later, than the others."""
    job = client_of(farm, token, state).prioritize(job_id, number)
    console.say(f"{job_id} has priority {number}" + (f"; {waits_words(job)}" if job["waiting_for"] else ""))


@remote.command()
def rerender(
    job_id: JobId,
    frames: Annotated[str, typer.Option(help="FIRST:END, such as 24:48; END itself stays as it is.")],
    farm: Farm = None,
    token: Token = None,
    state: StateFolder = None,
) -> None:
    """Render some frames of a video again, with other noise; the rest stays as it is."""
    start, end = parse_frames(frames)
    segments = client_of(farm, token, state).rerender(job_id, start, end)
    console.say(f"{job_id} renders {', '.join(segments)} again; `farm watch {job_id}` follows it")


@remote.command()
def delete(job_id: JobId, farm: Farm = None, token: Token = None, state: StateFolder = None) -> None:
    """Forget a job that has ended, and remove its files."""
    client_of(farm, token, state).delete(job_id)
    console.out.print(f"{job_id} is deleted", markup=False)


@remote.command()
def nodes(farm: Farm = None, token: Token = None, state: StateFolder = None, as_json: Json = False) -> None:
    """List the machines' workers: memory, what they do, why they idle."""
    found = client_of(farm, token, state).nodes()
    if as_json:
        console.print_json(found)
        return
    rows = (
        (
            worker["id"],
            worker["kind"],
            worker["device_name"],
            gib(worker["vram_bytes"]),
            worker["status"],
            ", ".join(task["task_id"] for task in worker["tasks"]) or console.advised(worker["idle_because"]),
        )
        for node in found
        for worker in node["workers"]
    )
    console.print_rows(("worker", "kind", "device", "memory", "state", "what"), rows)


@remote.command()
def drain(name: Name, farm: Farm = None, token: Token = None, state: StateFolder = None) -> None:
    """Let a node, or one worker, finish its segment and rest."""
    client_of(farm, token, state).drain(name)
    console.say(
        f"{name} gets nothing new and rests after its current segment; `farm enable {name}` ends that"
    )


@remote.command()
def enable(name: Name, farm: Farm = None, token: Token = None, state: StateFolder = None) -> None:
    """Let a drained node, or worker, come back."""
    client_of(farm, token, state).enable(name)
    console.out.print(f"{name} is coming back", markup=False)


@remote.command()
def remove(
    node: Annotated[str, typer.Argument(help="A machine that joined, here or not.")],
    farm: Farm = None,
    token: Token = None,
    state: StateFolder = None,
) -> None:
    """Take a machine out that is not to be trusted any more: at once, with all keys it knows.

    Ray is started again with another token; the other machines come back by themselves, and jobs go on.
    """
    if "/" in node:
        raise InvalidInput(f"node is {node!r}, a worker; a machine is removed as a whole", param="node")
    told = client_of(farm, token, state).remove_node(node)
    console.out.print(
        f"{node} is out; Ray starts again with another token, and the other machines come back", markup=False
    )
    for key_id in told["revoked_keys"]:
        console.out.print(f"key {key_id}, with which it joined, is revoked", markup=False)
    if told["has_owner_token"]:
        console.err.print(
            "it joined with the owner's token and has it still: end `farm up`, remove access-token in the "
            "state folder, and start it again",
            style="yellow",
        )


@remote.command()
def login(farm: Farm = None, token: Token = None, state: StateFolder = None) -> None:
    """Print a fresh link that logs one browser in, once and within an hour."""
    console.out.print(client_of(farm, token, state).login_link(), markup=False, soft_wrap=True)


@remote.command("join-token")
def join_token(farm: Farm = None, token: Token = None, state: StateFolder = None) -> None:
    """Print a fresh one-time token for `farm join`."""
    console.out.print(client_of(farm, token, state).join_token(), markup=False)


def target_of(named: Path | None, inputs: Sequence[Path] = (), *, force: bool) -> Outputs:
    """Where video and sheet will go; said where it is not the name that one expects."""
    target = outputs(named, inputs, force=force)
    if target.video != (named or DEFAULT_VIDEO):
        console.err.print(f"{DEFAULT_VIDEO} exists and stays; the video will be {target.video}", markup=False)
    beside = target.video.with_suffix(".png")
    if target.sheet != beside:
        console.err.print(
            f"{beside} exists and stays; the contact sheet will be {target.sheet}", markup=False
        )
    return target


def agreed(work: Callable[[], Result], accept: Callable[[str], object]) -> Result:
    """Do what may want licences to be accepted: that is asked for on a terminal, and refused elsewhere.

    ``accept`` remembers that it is, of the model that the option of this name asks for.
    """
    try:
        return work()
    except LicenceNotAccepted as error:
        if not sys.stdin.isatty():
            raise
        typer.confirm(f"{error.message}. Do you accept it?", abort=True, err=True)
        accept(error.param or "model")
        return agreed(work, accept)


def submitted(client: FarmClient, inputs: list[Path], options: dict[str, Any]) -> str:
    """Give the farm a job and say its id."""
    job_id: str = client.submit(inputs, options)["id"]
    console.out.print(job_id, markup=False)
    return job_id


def say_notes(client: FarmClient, job_id: str) -> None:
    """Say what was chosen or changed for a job."""
    for note in client.report(job_id)["notes"]:
        console.err.print(note, style="dim", markup=False)


def follow(client: FarmClient, job_id: str, target: Outputs | None) -> None:
    """Show a job's progress until it ends, and fetch its video."""
    with console.JobView() as view:
        for _, data in client.events(job_id, lost=view.lost):
            if data["type"] == "progress":
                view.waits(waits_words(data))
                for attempt in data["running"]:
                    view.step(attempt["attempt_id"], attempt["phase"], attempt["done_fraction"])
            else:
                at = data.pop("at")
                view.event(at, event_adapter.validate_python(data))
    job = client.job(job_id)
    if job["status"] != "succeeded":
        raise JobFailed(
            f"{job_id} is {job['status']}: {job['reason'] or f'`farm retry {job_id}` continues it'}"
        )
    if target is None:
        console.say(f"{job_id} is done; `farm watch {job_id} -o video.mp4` fetches it")
        return
    video = client.download(job_id, "video.mp4", target.video, replace=target.replaces)
    sheet = client.download(job_id, "sheet.png", target.sheet)
    say_made(client.report(job_id), video, sheet)


def say_made(report: Mapping[str, Any], video: Path, sheet: Path, shown_on: Console = console.out) -> None:
    """Say how a job ended."""
    for line in made_lines(report, str(video.absolute()), str(sheet.absolute())):
        console.say(line, shown_on)


def _journal_jobs(state: Path) -> list[Any]:
    if not (state / JOURNAL_NAME).exists():
        return []
    used = in_use(state)
    with past(state) as ledger:
        found = [job_summary(job, None, 0.0) for job in reversed(ledger.state.jobs.values())]
    return [{**job, **_waits_for_farm(job, used)} for job in found]


def _waits_for_farm(job: Mapping[str, Any], used: FolderInUse | None) -> dict[str, Any]:
    """What a job of a farm that is down waits for."""
    if job["status"] != "running" or used is not None:
        return {}
    if job["review"] == "waiting":
        return {"waiting_for": f"its keyframes wait for you; `farm review {job['id']}` shows them"}
    return {
        "waiting_for": "no farm is up in its state folder; `farm up` goes on with it",
        "queue_position": None,
    }
