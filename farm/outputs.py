"""Where a finished video and its contact sheet go: decided before any work, and no file there is lost.

An existing file is replaced where its user named it and said so (``--force``), an input never. A name that
nobody chose, such as the sheet's, is numbered until it is free, again when the file is put there: hours lie
in between.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path

from farm.errors import CannotRun, InvalidInput
from farm.values import Value

#: Of a video whose name nobody gave.
DEFAULT_VIDEO = Path("out.mp4")


class Outputs(Value):
    """Names of the files, and whether the video's may be taken from a file that is there."""

    video: Path
    sheet: Path
    replaces: bool = False

    @property
    def as_options(self) -> str:
        """What asks for the same place again."""
        return f"-o {shlex.quote(str(self.video))}" + (" --force" if self.replaces else "")


def choose(
    named: Path | None,
    *,
    force: bool,
    exists: Callable[[Path], bool],
    is_input: Callable[[Path], bool] = lambda path: False,
) -> Outputs:
    """Decide where video and sheet go.

    Args:
        named: What the user asked for; None: nothing, and ``out.mp4`` or the next free number is taken.
        force: Replace a video of that name.
        exists: Whether a path is taken, by whatever it is.
        is_input: Whether a path is a file that the video is made from, by whatever name.

    Raises:
        InvalidInput: no mp4, or the name is taken.
    """
    if named is None and not force:
        video = free(DEFAULT_VIDEO, exists)
    else:
        video = named or DEFAULT_VIDEO
        if video.suffix.lower() != ".mp4":
            raise InvalidInput(f"output is {video}, expected a name that ends in .mp4", param="output")
        if exists(video):
            if is_input(video):
                raise InvalidInput(
                    f"output {video} would replace the input of that name; choose another", param="output"
                )
            if not force:
                raise InvalidInput(
                    f"output {video} exists; choose another name, or replace it with --force", param="output"
                )
    return Outputs(video=video, sheet=free_sheet(video, exists), replaces=force)


def free(wanted: Path, exists: Callable[[Path], bool]) -> Path:
    """``wanted``, or its first number that is free: out.mp4, out-2.mp4, out-3.mp4."""
    return next(path for path in _numbered(wanted) if not exists(path))


def free_sheet(video: Path, exists: Callable[[Path], bool]) -> Path:
    """The first free name of a contact sheet: v.png, v-sheet.png, v-sheet-2.png."""
    beside = video.with_suffix(".png")
    return free(beside.with_stem(f"{beside.stem}-sheet"), exists) if exists(beside) else beside


def outputs(named: Path | None, inputs: Sequence[Path] = (), *, force: bool = False) -> Outputs:
    """``choose`` on this machine's disk, and refuse what could not be written in the end.

    Raises:
        InvalidInput: as ``choose`` says, or files cannot be written there.
    """

    def is_input(path: Path) -> bool:
        return any(given.exists() and given.samefile(path) for given in inputs)

    try:
        if named is not None and named.is_dir():
            raise InvalidInput(f"output {named} is a folder; give another name", param="output")
        chosen = choose(named, force=force, exists=os.path.lexists, is_input=is_input)
        video = chosen.video
        video.parent.mkdir(parents=True, exist_ok=True)
        if video.exists() and not os.access(video, os.W_OK):
            raise InvalidInput(f"output {video} is write-protected; choose another name", param="output")
        for path in (video, chosen.sheet):
            # Only trying tells of a full disk, a quota, a read-only mount or too long a name.
            tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".writing-{path.name}").close()
    except OSError as error:
        raise InvalidInput(
            f"output {named or DEFAULT_VIDEO} cannot be written ({error.strerror}); choose another place",
            param="output",
        ) from error
    return chosen


def put(whole: Path, wanted: Path, *, replace: bool = False) -> Path:
    """Give a file that is whole, in the same folder, its name; without ``replace`` the first that is free.

    Returns where it is.

    Raises:
        OSError: it cannot be put there.
    """
    if replace:
        os.replace(whole, wanted)
        return wanted
    place = _claimed(_numbered(wanted))
    os.replace(whole, place)
    return place


def _claimed(paths: Iterable[Path]) -> Path:
    """The first of these names that nothing has, held by an empty file: nobody else gets it."""
    for path in paths:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC))
        except FileExistsError:
            continue
        return path
    raise AssertionError("names do not end")


def _numbered(wanted: Path) -> Iterator[Path]:
    yield wanted
    yield from (wanted.with_stem(f"{wanted.stem}-{number}") for number in count(2))


def put_picture(folder: Path, number: int, sha256: str, content: bytes) -> Path:
    """Put a keyframe's picture into a folder, for a person to look at. Another picture has another name.

    Raises:
        CannotRun: it cannot be written there.
    """
    path = folder / f"{number:02d}-{sha256[:8]}.webp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(content)
    except OSError as error:
        raise CannotRun(f"{path} cannot be written ({error.strerror}); choose another place") from error
    return path
