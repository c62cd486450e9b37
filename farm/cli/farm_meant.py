"""What the commands share that talk to a farm: the options that name it, submitting, following to the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from farm.client import FarmClient, find_farm
from farm.errors import CannotRun, InvalidInput, JobFailed, LicenceNotAccepted
from farm.outputs import DEFAULT_VIDEO, Outputs, outputs
from farm.reporting import console, made_lines, waits_words
from farm.state import default_state_folder, event_adapter, in_use

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
Pages = Annotated[
    str | None,
    typer.Option(
        envvar="REELFARM_PAGES",
        help="URL at which browsers find the pages, such as a proxy's.",
        show_default="the farm's own address",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace a video of that name; an input never.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JobId = Annotated[str, typer.Argument(help="As `farm jobs` shows it.")]
Result = TypeVar("Result")


def client_unless_here(
    here: Sequence[str | None], farm: str | None, token: str | None, state: Path | None
) -> FarmClient | None:
    """As ``find_farm``; none where options, ``here``, tell of this machine's own workers.

    Raises:
        InvalidInput: those and a farm elsewhere are both named.
    """
    if all(option is None for option in here):
        return find_farm(farm, token, state)
    if farm is not None:
        raise InvalidInput(
            "--workers and --vram-limit are of this machine, and --farm is another; give one", param="farm"
        )
    return None


def client_of(farm: str | None, token: str | None, state: Path | None) -> FarmClient:
    client = find_farm(farm, token, state)
    if client is None:
        if used := in_use(state or default_state_folder()):
            raise used
        raise CannotRun("no farm is up here; start one with `farm up`, or name one with --farm")
    return client


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


def say_notes(client: FarmClient, job_id: str) -> None:
    """Say what was chosen or changed for a job."""
    for note in client.report(job_id)["notes"]:
        console.err.print(note, style="dim", markup=False)


def follow(client: FarmClient, job_id: str, target: Outputs | None, *, as_json: bool = False) -> None:
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
    if target is not None:
        video = client.download(job_id, "video.mp4", target.video, replace=target.replaces)
        say_made(client.report(job_id), video, client.download(job_id, "sheet.png", target.sheet), as_json)
    elif as_json:
        console.print_json(client.report(job_id))
    else:
        console.say(f"{job_id} is done; `farm watch {job_id} -o video.mp4` fetches it")


def say_made(report: Mapping[str, Any], video: Path, sheet: Path, as_json: bool) -> None:
    """Say how a job ended, and where its files are."""
    places = {"video": str(video.absolute()), "sheet": str(sheet.absolute())}
    if as_json:
        console.print_json({**report, **places})
    for line in made_lines(report, **places):
        console.say(line, console.err if as_json else console.out)
