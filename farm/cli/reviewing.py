"""``farm review``: what is typed of a job's keyframes, and how it goes to a farm that is up."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from farm.client import FarmClient
from farm.errors import InvalidInput
from farm.outputs import put_picture
from farm.reporting import console, made_again_words
from farm.request import MAX_SIDE, Approve, Remake, Replace, ReviewChange, TakeBack, parse_replacement

RemakeNumbers = Annotated[
    list[int] | None,
    typer.Option(
        "--remake", help="Number of a keyframe to make again, with another seed.", show_default="none"
    ),
]
Replacements = Annotated[
    list[str] | None,
    typer.Option("--replace", help="N=FILE: let a picture stand for a keyframe.", show_default="none"),
]
TakeBackNumbers = Annotated[
    list[int] | None,
    typer.Option("--take-back", help="Number of a keyframe to have back as rendered.", show_default="none"),
]


def review_changes(
    remake: Sequence[int] | None,
    seed: int | None,
    replace: Sequence[str] | None,
    take_back: Sequence[int] | None,
    approve: bool,
) -> list[ReviewChange]:
    """What is to be done, in this order.

    Raises:
        InvalidInput: a replacement is none, a seed stands alone, or what is made again is approved unseen.
    """
    if seed is not None and not remake:
        raise InvalidInput("--seed goes with --remake N; say which keyframe", param="seed")
    if remake and approve:
        raise InvalidInput(
            "--remake and --approve are both given; look at what is made again first", param="approve"
        )
    return [
        *(TakeBack(number=number) for number in take_back or ()),
        *(parse_replacement(text) for text in replace or ()),
        *(Remake(number=number, seed=seed) for number in remake or ()),
        *([Approve()] if approve else []),
    ]


def review_over(
    client: FarmClient,
    job_id: str,
    changes: Sequence[ReviewChange],
    folder: Path,
    as_json: bool,
    *,
    video: Path | None,
) -> None:
    """Have a farm do it, and say what else is changed; or show the keyframes.

    Args:
        video: What the command that fetches the video is to call it.
    """
    for change in changes:
        match change:
            case Remake(number=number, seed=seed):
                details: list[Any] = client.keyframes(job_id)
                client.remake_keyframe(job_id, number, seed)
                console.say(made_again_words(details[number - 1]), console.err)
                console.say(f"`farm review {job_id}` shows them when they are there", console.err)
            case Replace(number=number, path=path):
                notes = client.replace_keyframe(job_id, number, path)
                console.say("; ".join((f"keyframe {number} is {path.name} now", *notes)), console.err)
            case TakeBack(number=number):
                client.take_back_keyframe(job_id, number)
                console.say(f"keyframe {number} is what was rendered again", console.err)
            case Approve():
                client.approve(job_id)
                name = shlex.quote(str(video or "video.mp4"))
                console.say(f"{job_id} renders its video; `farm watch {job_id} -o {name}` fetches it")
    if changes:
        if as_json:
            console.print_json(client.job(job_id))
        return
    shown: list[Any] = client.keyframes(job_id)
    for detail in shown:
        if detail["sha256"] is not None:
            picture = client.keyframe_picture(job_id, detail["number"], MAX_SIDE)
            put_picture(folder, detail["number"], detail["sha256"], picture)
    print_keyframes(shown, folder, as_json)
    if client.job(job_id)["review"] == "waiting" and not as_json:
        say_that_it_waits(job_id)


def say_that_it_waits(job_id: str) -> None:
    console.say(f"it waits for you: `farm review {job_id} --approve` renders the video")


def print_keyframes(details: Sequence[Any], folder: Path, as_json: bool) -> None:
    """The list, and where the pictures are."""
    if as_json:
        console.print_json(list(details))
        return
    console.print_keyframes(details)
    console.say(f"the pictures are in {folder}" if details else "it has no keyframes")
