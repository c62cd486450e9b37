"""The commands that talk to a farm that is up; without one, those that can, read the journal instead."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from farm.capabilities import gib
from farm.cli.farm_meant import (
    Farm,
    Force,
    JobId,
    Json,
    Pages,
    StateFolder,
    Token,
    client_of,
    follow,
    target_of,
)
from farm.client import find_farm
from farm.errors import InvalidInput
from farm.machines import check_pages
from farm.reporting import add_idle, console, job_report, job_summary, print_jobs, waits_words, workers_seen
from farm.state import JOURNAL_NAME, FolderInUse, default_state_folder, in_use, past

remote = typer.Typer()

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


@remote.command()
def jobs(farm: Farm = None, token: Token = None, state: StateFolder = None, as_json: Json = False) -> None:
    """List the jobs, newest first."""
    client = find_farm(farm, token, state)
    found = list(client.jobs()) if client else journal_jobs(state or default_state_folder())
    if as_json:
        console.print_json(found)
        return
    print_jobs(found, time.time())


@remote.command()
def report(
    job_id: JobId, farm: Farm = None, token: Token = None, state: StateFolder = None, as_json: Json = False
) -> None:
    """Tell the story of a job: segments, workers, memory, seams, times."""
    client = find_farm(farm, token, state)
    if client:
        told: dict[str, Any] = client.report(job_id)
    else:
        with past(state or default_state_folder()) as ledger:
            told = job_report(ledger.job(job_id), workers_seen(ledger.journal))
            add_idle(told, ledger.journal.events())
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
    as_json: Json = False,
) -> None:
    """Follow a job until it ends."""
    target = None if output is None else target_of(output, force=force)
    follow(client_of(farm, token, state), job_id, target, as_json=as_json)


@remote.command()
def cancel(
    job_id: JobId, farm: Farm = None, token: Token = None, state: StateFolder = None, as_json: Json = False
) -> None:
    """Stop a job; what is done is kept, and `farm retry` continues it."""
    job = client_of(farm, token, state).cancel(job_id)
    console.tell(job, f"{job_id} is cancelled; `farm retry {job_id}` continues it", as_json=as_json)


@remote.command()
def priority(
    job_id: JobId,
    number: Annotated[int, typer.Argument(help="0 to 100, higher first.")],
    farm: Farm = None,
    token: Token = None,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Serve a job sooner, or later, than the others."""
    job = client_of(farm, token, state).prioritize(job_id, number)
    waits = f"; {waits_words(job)}" if job["waiting_for"] else ""
    console.tell(job, f"{job_id} has priority {number}{waits}", as_json=as_json)


@remote.command()
def rerender(
    job_id: JobId,
    frames: Annotated[str, typer.Option(help="FIRST:END, such as 24:48; END itself stays as it is.")],
    farm: Farm = None,
    token: Token = None,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Render some frames of a video again, with other noise; the rest stays as it is."""
    start, end = parse_frames(frames)
    segments = client_of(farm, token, state).rerender(job_id, start, end)
    console.tell(
        {"job_id": job_id, "segments": segments},
        f"{job_id} renders {', '.join(segments)} again; `farm watch {job_id}` follows it",
        as_json=as_json,
    )


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
def drain(
    name: Name, farm: Farm = None, token: Token = None, state: StateFolder = None, as_json: Json = False
) -> None:
    """Let a node, or one worker, finish its segment and rest."""
    client_of(farm, token, state).drain(name)
    console.tell(
        {"name": name, "draining": True},
        f"{name} gets nothing new and rests after its current segment; `farm enable {name}` ends that",
        as_json=as_json,
    )


@remote.command()
def enable(
    name: Name, farm: Farm = None, token: Token = None, state: StateFolder = None, as_json: Json = False
) -> None:
    """Let a drained node, or worker, come back."""
    client_of(farm, token, state).enable(name)
    console.tell({"name": name, "draining": False}, f"{name} is coming back", as_json=as_json)


@remote.command()
def remove(
    node: Annotated[str, typer.Argument(help="A machine that joined, here or not.")],
    farm: Farm = None,
    token: Token = None,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Take a machine out that is not to be trusted any more: at once, with all keys it knows.

    Ray is started again with another token; the other machines come back by themselves, and jobs go on.
    """
    if "/" in node:
        raise InvalidInput(f"node is {node!r}, a worker; a machine is removed as a whole", param="node")
    told = client_of(farm, token, state).remove_node(node)
    if as_json:
        console.print_json({"node": node, **told})
        return
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
def login(
    farm: Farm = None,
    token: Token = None,
    pages: Pages = None,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Print a fresh link that logs one browser in, once and within an hour."""
    if pages is not None:
        check_pages(pages)
    link = client_of(farm, token, state).login_link(pages)
    console.tell({"url": link}, link, as_json=as_json)


@remote.command("join-token")
def join_token(
    farm: Farm = None, token: Token = None, state: StateFolder = None, as_json: Json = False
) -> None:
    """Print a fresh one-time token for `farm join`."""
    made = client_of(farm, token, state).join_token()
    console.tell({"token": made}, made, as_json=as_json)


def journal_jobs(state: Path) -> list[Any]:
    """The ``JobSummary`` of every job of a state folder whose farm is not up, the newest first."""
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
