"""Whatever is wrong with the input: one line that says what and what to do, and nothing is left behind."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stitching.video_io import VideoWriter

PHOTO = str(Path(__file__).parents[2] / "examples" / "coffee.jpg")
#: Commands at once; each is decoded in a child of its own.
AT_ONCE = 2


@dataclass(frozen=True)
class Refusal:
    """A command line, in which ``@name`` is one of the bad files, and what must be said about it."""

    name: str
    arguments: tuple[str, ...]
    says: tuple[str, ...]
    status: int = 2
    ordinary: bool = False


def file(name: str, *says: str, status: int = 2, ordinary: bool = False) -> Refusal:
    """A bad file given to ``render``."""
    return Refusal(f"file {name}", ("render", f"@{name}", "-o", "v.mp4"), says, status, ordinary)


def render(name: str, arguments: str, *says: str, status: int = 2, ordinary: bool = False) -> Refusal:
    """A good photo with bad options."""
    return Refusal(name, ("render", PHOTO, "-o", "v.mp4", *arguments.split()), says, status, ordinary)


def plan(name: str, arguments: str, *says: str, status: int = 2) -> Refusal:
    return Refusal(f"plan {name}", ("plan", PHOTO, *arguments.split()), says, status)


REFUSALS = [
    file("missing.png", "missing.png does not exist; check the path"),
    file("unreadable.png", "may not be read by this user; change its permissions", ordinary=True),
    file("folder.png", "is a folder; give one image or video file"),
    file("pipe.mp4", "is a device or a pipe, not a file; save its content"),
    file("empty.png", "is empty (0 bytes); copy or download it again"),
    file("text.png", "is a text file, not an image or video; use a PNG, JPEG, WebP, HEIC"),
    file("bytes.jpg", "is neither an image nor a video of a known type"),
    file("document.png", "is a PDF document, not a picture; export the page as PNG"),
    file("playlist.mp4", "is a playlist, not a video; give the video file itself"),
    file("bomb.png", "is 60000x60000; at most 210 million pixels are taken, make it smaller"),
    file("tiny.png", "is 8x8; at least 16x16 is needed"),
    file("cut.jpg", "is cut off or damaged: its pixels cannot be decoded; copy or export it again"),
    file("cut.png", "is cut off or damaged: its pixels cannot be decoded; copy or export it again"),
    file("cut.mp4", "is cut off: its end is missing; copy or download it again"),
    file("damaged.mp4", "damaged.mp4", "copy"),
    file("wide.mp4", "is 8208x32; make it 8192x8192 or smaller"),
    file("line\nbreak\x1b[31m.png", "line?break?[31m.png does not exist; check the path"),
    Refusal("plan of a damaged file", ("plan", "@cut.jpg"), ("is cut off or damaged",)),
    Refusal("two videos", ("render", "@good.mp4", "@good.mp4"), ("give one video, or one or more images",)),
    Refusal("more frames than the video has", ("render", "@good.mp4", "--frames", "13"),
            ("13 frames are asked for, and the input video has 12; ask for fewer",)),
    Refusal("a video and mode chain", ("render", "@good.mp4", "--mode", "chain"), ("use refine",), 3),

    render("no seconds", "--seconds 0", "seconds is 0.0, expected above 0"),
    plan("endless seconds", "--seconds inf", "seconds is inf, expected above 0 and at most 200000"),
    render("seconds in words", "--seconds four", "'--seconds'", "valid number", "--help` shows how"),
    render("a billion frames", "--frames 1000000000", "frames is 1000000000, expected 1 to 200000"),
    plan("negative frames", "--frames -1", "frames is -1, expected 1 to 200000"),
    render("no fps", "--fps 0", "fps is 0, expected 1/10 to 240"),
    render("fps over nothing", "--fps 1/0", "fps is '1/0', expected a number such as 8 or 30000/1001"),
    render("fps near nothing", "--fps 1/5000", "fps is 1/5000, expected 1/10 to 240"),
    plan("fps that nobody could write out", "--fps 1e999999999", "fps is '1e999999999', expected a number"),
    render("a size of one side", "--size 512", "size is '512', expected WIDTHxHEIGHT such as 512x512"),
    render("a size of nothing", "--size 0x0", "width is 0, expected 16 to 4096"),
    render("an odd size", "--size 513x512 --model procedural", "needs multiples of 2; try 512x512"),
    render("a size the model has no grid for", "--size 130x130", "needs multiples of 16; try 128x128"),
    render("a size beyond sense", "--size 999999x512", "width is 999999, expected 16 to 4096"),
    render("a window of nothing", "--window 0", "window is 0, expected 1 to 1024"),
    render("a window too long", "--window 65", "tiny_wan renders 5 to 33 in the form 4k+1", status=3),
    render("an overlap of the window", "--overlap 8 --window 8", "overlap is 8, expected at most half"),
    render("no steps", "--steps 0", "steps is 0, expected 1 to 1000"),
    render("a preview with steps", "--preview --steps 9", "steps is 9 and --preview takes the model's"),
    render("guidance that is no number", "--guidance nan", "guidance is nan, expected 0 to 100"),
    render("no strength", "--strength 0", "strength is 0.0, expected above 0 and at most 1"),
    render("a negative seed", "--seed -1", "seed is -1, expected 0 to 9223372036854775807"),
    render("a priority past all", "--priority 101", "priority is 101, expected 0 to 100"),
    render("prompts for two", "-p one -p two", "got 2 prompts for 1 inputs; give one prompt for all"),
    render("an unknown mode", "--mode sideways",
           "mode is 'sideways', expected one of auto, independent, chain, refine, infill, co_denoise"),
    render("a mode for models that fuse", "--mode co_denoise", "is not prepared for that", status=3),

    render("an unknown model", "--model dream", "model 'dream' is none of", "`farm models` lists them"),
    Refusal("no name of a model", ("plan", PHOTO, "--model", ""), ("model '' is none of procedural,",)),
    render("a folder that is no model", "--model /etc", "/etc has no readable model_index.json"),
    render("a model of another family", "--model @family", "is a HunyuanVideoImageToVideoPipeline",
           "there are engines here for "),
    render("a model with parts missing", "--model @partial", "is not a complete I2VGen-XL folder, it lacks ",
           "unet/config.json", "download the model again", status=3),

    render("workers in words", "--workers lots", "workers is 'lots', expected an amount such as 12GiB"),
    render("workers without a unit", "--workers 12", "workers is '12', expected an amount such as 12GiB"),
    render("a gap among the workers", "--workers 8GiB,,8GiB", "workers is '', expected an amount"),
    render("a limit of nothing", "--vram-limit 0GiB", "vram-limit is '0GiB', expected more than 0"),

    render("output of another type", "-o v.avi", "output is v.avi, expected a name that ends in .mp4"),
    Refusal("output that is a folder", ("render", PHOTO, "-o", "given/folder.mp4"),
            ("output given/folder.mp4 is a folder; give another name",)),
    render("output in a file", "-o /dev/null/v.mp4", "cannot be written", "choose another place"),
    render("output in a locked folder", "-o given/locked/v.mp4", "given/locked/v.mp4 cannot be written",
           "(Permission denied); choose another place", ordinary=True),
    render("output that is there", "-o given/good.mp4", "good.mp4 exists", "or replace it with --force"),
    render("output that is write-protected", "-o given/kept.mp4 --force",
           "given/kept.mp4 is write-protected; choose another name", ordinary=True),
    render("output with too long a name", f"-o {'v' * 245}.mp4", "(File name too long); choose another"),
    Refusal("output over the input", ("render", "@good.mp4", "-o", "given/good.mp4", "--force"),
            ("good.mp4 would replace the input",)),
    render("state that is a file", "--state given/good.png", "given/good.png cannot be made",
           "choose another --state", status=3),
    render("state in a locked folder", "--state given/locked/state", "(Permission denied)",
           "choose another --state", status=3, ordinary=True),
    render("a job larger than the disk", "--frames 50000 --size 4096x4096 --workers 8GiB --model procedural",
           "the job needs about 4026.4 GB in ", "GB is free there; free space or choose another", status=3),
    Refusal("an unknown option", ("render", PHOTO, "--speed", "9"), ("No such option: --speed", "--help`")),
    Refusal("an option without a value", ("render", PHOTO, "--frames"), ("'--frames' requires an argument",)),
    Refusal("no input", ("render",), ("there is no input", "say what is to be seen with a prompt")),
]  # fmt: skip


def frames(num_frames: int, width: int = 64, height: int = 48) -> Any:
    return np.random.default_rng(3).integers(0, 255, (num_frames, height, width, 3)).astype(np.uint8)


def write_video(path: Path, fps: Fraction, pixels: Any) -> None:
    with VideoWriter(path, fps=fps, width=pixels.shape[2], height=pixels.shape[1]) as writer:
        writer.write(pixels)


def image_bytes(kind: str, num_frames: int = 1, width: int = 64, height: int = 48) -> bytes:
    first, *others = (Image.fromarray(picture) for picture in frames(num_frames, width, height))
    buffer = io.BytesIO()
    first.save(buffer, kind, **({"save_all": True, "append_images": others} if others else {}))
    return buffer.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A tiny PNG whose header claims any size."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def write_bad_files(folder: Path) -> None:
    folder.mkdir(parents=True)
    write_video(folder / "good.mp4", Fraction(25), frames(12))
    write_video(folder / "wide.mp4", Fraction(25), frames(1, 8208, 32))
    whole = (folder / "good.mp4").read_bytes()
    pixels = whole.index(b"mdat") + 4
    photo, picture = image_bytes("JPEG"), image_bytes("PNG")
    contents = {
        "good.png": picture,
        "unreadable.png": picture,
        "empty.png": b"",
        "text.png": b"once upon a time\n",
        "bytes.jpg": bytes(range(256)),
        "document.png": b"%PDF-1.7\n" + bytes(100),
        "playlist.mp4": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n",
        "bomb.png": png_claiming(60_000, 60_000),
        "tiny.png": image_bytes("PNG", 1, 8, 8),
        "cut.jpg": photo[: len(photo) // 2],
        "cut.png": picture[: len(picture) // 2],
        "cut.mp4": whole[: len(whole) // 2],
        "damaged.mp4": whole[:pixels]
        + bytes(len(whole[pixels:]) // 2)
        + whole[-(len(whole[pixels:]) // 2) :],
        "kept.mp4": whole,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder.png").mkdir()
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    for name, family in (("family", "HunyuanVideoImageToVideoPipeline"), ("partial", "I2VGenXLPipeline")):
        (folder / name).mkdir()
        (folder / name / "model_index.json").write_text(f'{{"_class_name": "{family}"}}')
    (folder / "locked").mkdir(mode=0o500)
    (folder / "kept.mp4").chmod(0o400)
    (folder / "unreadable.png").chmod(0)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, farm_in: Any) -> Iterator[dict[str, Future[Any]]]:
    """Every refused command by its name, a few of them running ahead of the tests that look at them."""
    root = tmp_path_factory.mktemp("refused")
    write_bad_files(root / "given")

    def run(number: int, refusal: Refusal) -> Any:
        folder = root / str(number)
        folder.mkdir()
        (folder / "given").symlink_to(root / "given")
        arguments = [str(folder / "given" / a[1:]) if a.startswith("@") else a for a in refusal.arguments]
        return farm_in(*arguments, folder=folder, ordinary=refusal.ordinary)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {refusal.name: pool.submit(run, i, refusal) for i, refusal in enumerate(REFUSALS)}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("refusal", REFUSALS, ids=[refusal.name for refusal in REFUSALS])
def test_it_is_refused_in_one_line_and_leaves_nothing(
    outcomes: dict[str, Future[Any]], refusal: Refusal
) -> None:
    outcome = outcomes[refusal.name].result()
    message = outcome.error()
    for part in refusal.says:
        assert part in message
    assert outcome.status == refusal.status
    assert outcome.out == ""


@pytest.mark.parametrize("command", ["plan", "render"])
def test_workers_too_small_are_told_three_settings_that_do_fit(farm: Any, command: str) -> None:
    drawn = ("--model", "procedural", "--size", "4096x4096", "--window", "8", "--overlap", "4")
    asked = (command, PHOTO, *drawn, "--workers", "600MiB")
    outcome = farm(*asked)
    message = outcome.error()
    assert outcome.status == 3
    assert message.startswith("no worker can hold 4096x4096 in windows of 8 frames: ")
    assert "has 0.59 GiB, the smallest rung (resident) needs 2.66 GiB; these fit: " in message
    settings = [text.rsplit(" (", 1)[0] for text in message.split("these fit: ")[1].split("), ")]
    assert len(settings) == len(set(settings)) == 3
    for setting in settings if command == "plan" else ():
        planned = farm(*asked, *setting.split())
        assert (planned.status, planned.err) == (0, "")


def test_an_argument_that_is_no_text_is_refused_like_any_other(farm: Any) -> None:
    assert "?.png does not exist" in farm("plan", b"\xff.png").error()
    assert "prompt holds bytes that are no UTF-8 text" in farm("plan", PHOTO, "-p", b"\xff").error()


def test_a_full_disk_for_temporary_files_is_named(farm: Any, tiny_disk: Any, tmp_path: Path) -> None:
    (tmp_path / "tmp").symlink_to(tiny_disk(64 << 10))
    outcome = farm("render", PHOTO)
    assert "coffee.jpg cannot be copied (No space left on device); check the disk" in outcome.error()
    assert outcome.status == 2


def test_a_full_disk_for_the_state_is_refused_at_submit_with_what_is_needed_and_free(
    farm: Any, tiny_disk: Callable[[int], Path]
) -> None:
    disk = tiny_disk(64 << 20)
    asked = ("render", PHOTO, "--model", "procedural", "--workers", "1GiB")
    outcome = farm(*asked, "--state", str(disk / "state"))
    message = outcome.error()
    assert message.startswith(
        f"the job needs about 37 MB in {disk / 'state'} and leaves 210 MB alone, and 67 MB"
    )
    assert outcome.status == 3
    assert [path for path in disk.rglob("*") if path.is_file()] == []


def test_a_read_only_disk_for_the_output_is_refused_before_anything_runs(
    farm: Any, tiny_disk: Callable[[int], Path]
) -> None:
    disk = tiny_disk(64 << 10)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    outcome = farm("render", PHOTO, "-o", str(disk / "v.mp4"))
    assert "cannot be written (Read-only file system); choose another place" in outcome.error()
    assert outcome.status == 2


@pytest.mark.ray
def test_a_full_disk_for_the_output_keeps_the_video_and_says_where(
    farm: Any, tiny_disk: Callable[[int], Path]
) -> None:
    disk = tiny_disk(16 << 10)
    outcome = farm(
        "render", PHOTO, "--model", "procedural", "--frames", "8", "--size", "128x128", "--workers", "1GiB",
        "-o", str(disk / "v.mp4"), starts_ray=True,
    )  # fmt: skip
    assert outcome.status == 3, outcome.err
    message = outcome.err.splitlines()[-1]
    assert message.startswith(
        f"error: {disk / 'v.mp4'} cannot be written (No space left on device); it is kept as "
    )
    kept = Path(message.rsplit(" it is kept as ", 1)[1])
    assert kept.is_relative_to(outcome.folder / "state" / "jobs")
    assert kept.stat().st_size > 16 << 10
    assert "Traceback" not in outcome.err
    assert list(disk.iterdir()) == []
    assert list((outcome.folder / "state" / "incoming").iterdir()) == []
    assert outcome.processes() == []


@pytest.mark.long
@pytest.mark.ray
def test_a_second_render_in_the_same_state_folder_waits_for_the_first(farm: Any, tmp_path: Path) -> None:
    asked = ["render", PHOTO, "--model", "procedural", "--frames", "24", "--size", "256x256"]
    asked += ["--workers", "1GiB"]
    command = [sys.executable, "-m", "farm", *asked, "-o", "first.mp4"]
    state = tmp_path / "state"
    environment = {**os.environ, "REELFARM_STATE": str(state)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) as first:
        assert first.stderr is not None
        assert any(b"worker" in line for line in first.stderr)  # one is here: Ray is up
        second = farm(*asked, "-o", "second.mp4", starts_ray=True)
        _, rest = first.communicate(timeout=120)
    assert first.returncode == 0, rest
    assert second.status == 0, second.err
    told = f"waiting: farm render (process {first.pid}) is working in {state}"
    assert second.err.count(told) == 1
    assert (tmp_path / "first.mp4").read_bytes()
    assert (second.folder / "second.mp4").read_bytes()
