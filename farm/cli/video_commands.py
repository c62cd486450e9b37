"""The commands that make a video: here alone, or on a farm that is up."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from farm.cli.farm_meant import (
    Farm,
    Force,
    JobId,
    Json,
    StateFolder,
    Token,
    agreed,
    client_of,
    client_unless_here,
    follow,
    say_made,
    say_notes,
    target_of,
)
from farm.cli.machine_commands import VramLimit, Workers, workers_here
from farm.cli.reviewing import (
    RemakeNumbers,
    Replacements,
    TakeBackNumbers,
    print_keyframes,
    review_changes,
    review_over,
    say_that_it_waits,
)
from farm.cli.storage_commands import Adopt, Ignore, settled
from farm.cli.video_options import describes_video
from farm.client import FarmClient, find_farm
from farm.errors import InvalidInput
from farm.outputs import Outputs
from farm.planning import Plan
from farm.reporting import console, keyframe_details, print_plan, print_segments, review_status
from farm.running import Storage
from farm.scheduling import Quote, quote
from farm.state import State, WorkerState, default_state_folder, past

video = typer.Typer()

Inputs = Annotated[
    list[Path],
    # What cannot be read is told from the rest by the check of the files, not by typer.
    typer.Argument(
        help="An image, several images (a storyboard), or a video; without any, the prompt alone, for a "
        "model that takes text_alone.",
        readable=False,
        default_factory=list,
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        show_default="the next free out.mp4",
        help="The video; a contact sheet goes beside it.",
    ),
]


@video.command()
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
    here = workers_here(workers, vram_limit)
    folder = settled(state, adopt, ignore, for_render=True)
    from nodes.hosting import accept_licence, render_here

    rendered = agreed(
        lambda: run(render_here(inputs, options, here, folder, target)),
        lambda option: accept_licence(options[option], folder),
    )
    _print_rendered(rendered, as_json)


@video.command()
@describes_video
def plan(
    inputs: Inputs,
    options: dict[str, Any],
    segments: Annotated[bool, typer.Option("--segments", help="Tell every segment, too.")] = False,
    workers: Workers = None,
    vram_limit: VramLimit = None,
    farm: Farm = None,
    token: Token = None,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Show how a video would be made, without making it: on the farm that is up, else here alone."""
    client = client_unless_here((workers, vram_limit), farm, token, state)
    if client is not None:
        made, price = _planned_on(client, inputs, options)
    else:
        made, price = _planned_here(inputs, options, workers, vram_limit, state or default_state_folder())
    if as_json:
        console.print_json(made.model_dump(mode="json"))
        return
    if segments:
        print_segments(made)
    print_plan(made, price, on_a_farm=client is not None)


def _planned_on(client: FarmClient, inputs: list[Path], options: dict[str, Any]) -> tuple[Plan, Quote]:
    told = agreed(lambda: client.plan(inputs, options), lambda option: client.accept_licence(options[option]))
    return Plan.model_validate(told["plan"]), Quote.model_validate(told["quote"])


def _planned_here(
    inputs: list[Path], options: dict[str, Any], workers: str | None, vram_limit: str | None, folder: Path
) -> tuple[Plan, Quote]:
    from nodes.hosting import accept_licence, check_licences, described, planned
    from nodes.machine import scratch_folder

    here = workers_here(workers, vram_limit)
    agreed(lambda: check_licences(options, folder), lambda option: accept_licence(options[option], folder))
    with scratch_folder() as scratch, console.LookView() as view:
        request = described(inputs, options, scratch, view.told)
    made = planned(request, here)
    state = State(workers={worker.id: WorkerState(worker) for worker in here})
    return made, quote(state, made, time.monotonic())


@video.command()
@describes_video
def submit(
    inputs: Inputs,
    options: dict[str, Any],
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="With --watch: the video.", show_default="it is not fetched"),
    ] = None,
    force: Force = False,
    farm: Farm = None,
    token: Token = None,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Give a job to a farm that is up; prints the job's id."""
    if output is not None and not watch:
        raise InvalidInput("--output goes with --watch; without it, `farm watch` fetches", param="output")
    target = None if output is None else target_of(output, _files(inputs, options), force=force)
    client = client_of(farm, token, state)
    job = agreed(
        lambda: client.submit(inputs, options),
        lambda option: client.accept_licence(options[option]),
    )
    if as_json and not watch:
        console.print_json(job)
        return
    console.say(job["id"], console.err if as_json else console.out)
    if watch:
        follow(client, job["id"], target, as_json=as_json)
    else:
        say_notes(client, job["id"])


@video.command()
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
    client = find_farm(farm, token, state)
    if client:
        client.retry(job_id)
        follow(client, job_id, target, as_json=as_json)
        return
    folder = settled(state, adopt, ignore, for_render=True)
    from nodes.hosting import retry_here

    here = workers_here(workers, vram_limit)
    _print_rendered(run(retry_here(job_id, here, folder, target)), as_json)


@video.command()
def review(
    job_id: JobId,
    remake: RemakeNumbers = None,
    seed: Annotated[
        int | None, typer.Option(help="For --remake.", show_default="another than before")
    ] = None,
    replace: Replacements = None,
    take_back: TakeBackNumbers = None,
    approve: Annotated[bool, typer.Option("--approve", help="Render the video.")] = False,
    pictures: Annotated[
        Path | None, typer.Option(help="A folder for the pictures.", show_default="JOB-keyframes")
    ] = None,
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
    """Look at a job's keyframes before its windows are rendered; make some again, replace them, approve.

    On the farm that is up, else here alone.
    """
    changes = review_changes(remake, seed, replace, take_back, approve)
    shown_in = pictures or Path(f"{job_id}-keyframes")
    client = find_farm(farm, token, state)
    if client:
        review_over(client, job_id, changes, shown_in, as_json, video=output)
        return
    from nodes.hosting import review_here, save_keyframes

    if not changes:
        folder = state or default_state_folder()
        with past(folder) as ledger:
            job = ledger.job(job_id)
            save_keyframes(Storage(folder), job, shown_in)
            print_keyframes(keyframe_details(job), shown_in, as_json)
        if job.awaits_review and not as_json:
            say_that_it_waits(job_id)
        elif review_status(job) == "rendering" and not as_json:
            console.say(f"its keyframes are not all there; `farm retry {job_id}` goes on with them")
        return
    target = target_of(output, force=force)
    folder = settled(state, adopt, ignore, for_render=True)
    here = workers_here(workers, vram_limit)
    _print_rendered(run(review_here(job_id, changes, here, folder, target)), as_json)


def _files(inputs: list[Path], options: dict[str, Any]) -> list[Path]:
    """All that a video is made from."""
    return [*inputs, *filter(None, [options["audio"], options["mask"]]), *options["references"]]


def _print_rendered(rendered: tuple[dict[str, Any], Outputs | None], as_json: bool) -> None:
    """Where a job's video is and how it came about; without one it waits for its user, who was told."""
    report, done = rendered
    if done is not None:
        say_made(report, done.video, done.sheet, as_json)
    elif as_json:
        console.print_json(report)


def run(work: Coroutine[Any, Any, Any]) -> Any:
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
