"""Command line: python -m stitching A.mp4 B.mp4 [C.mp4 ...] --overlap 4 -o joined.mp4"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stitching.clip import Frames, StitchError
from stitching.contact_sheet import ContactSheet
from stitching.seam_metrics import SeamReport
from stitching.stitch import Stitcher
from stitching.video_io import VideoError, VideoInfo, VideoWriter, probe_video, read_chunks

_CHUNK_FRAMES = 32  # a clip of any length goes through memory in pieces of this many frames


@dataclass(frozen=True)
class _Join:
    clip: Path
    first_frame: int  # of the overlap, in the output
    report: SeamReport


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 after one line on stderr that says what is wrong."""
    options = _parser().parse_args(arguments)
    temporary = options.output.with_name(f".{options.output.name}.{os.getpid()}.part")
    try:
        _check_outputs(options)
        joins = _join(options, temporary)
        os.replace(temporary, options.output)
    except (VideoError, StitchError, OSError) as error:
        print(f"stitching: {error}", file=sys.stderr)
        return 2
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    _print(joins, options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stitching", description="Joins video clips whose ends show the same moments into one video."
    )
    parser.add_argument("clips", nargs="+", type=Path, metavar="CLIP", help="two or more, in order")
    parser.add_argument("--overlap", type=int, required=True, help="frames each clip shares with the next")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the mp4 file to write")
    parser.add_argument("--crf", type=int, default=16, help="H.264 quality, 0 best to 51 (default 16)")
    parser.add_argument("--contact-sheet", type=Path, metavar="PNG", help="also draw frames and seams")
    parser.add_argument("--force", action="store_true", help="replace files that have these names")
    parser.add_argument("--json", action="store_true", help="print the seam reports as JSON")
    return parser


def _check_outputs(options: argparse.Namespace) -> None:
    """Raises StitchError where a file would be lost: a clip ever, another one without --force."""
    for path in filter(None, (options.output, options.contact_sheet)):
        if any(os.path.exists(path) and clip.exists() and clip.samefile(path) for clip in options.clips):
            raise StitchError(f"{path} is one of the clips and would be replaced; give another name")
        if os.path.lexists(path) and not options.force:
            raise StitchError(f"{path} exists; give another name, or replace it with --force")


def _join(options: argparse.Namespace, temporary: Path) -> list[_Join]:
    infos = _checked(options)
    overlap: int = options.overlap
    starts = [0]
    for info in infos[:-1]:
        starts.append(starts[-1] + info.num_frames - overlap)
    sheet = ContactSheet(starts[-1] + infos[-1].num_frames)
    joins: list[_Join] = []
    num_emitted = 0
    width, height, fps = infos[0].width, infos[0].height, infos[0].fps
    with VideoWriter(temporary, fps=fps, width=width, height=height, crf=options.crf) as writer:

        def sink(frames: Frames) -> None:
            nonlocal num_emitted
            writer.write(frames)
            for index, frame in enumerate(frames, num_emitted):
                sheet.add(index, frame)
            num_emitted += len(frames)

        stitcher = Stitcher(sink, hold_frames=overlap)
        for path, start in zip(options.clips, starts, strict=True):
            chunks = read_chunks(path, max(_CHUNK_FRAMES, 2 * overlap))
            if start == 0:
                stitcher.start(next(chunks))
            else:
                seam = stitcher.propose(next(chunks), overlap=overlap)
                stitcher.accept(seam)
                joins.append(_Join(path, start, seam.report))
                sheet.mark_seam(start, start + max(overlap, 1) - 1, seam.report.passed)
            for chunk in chunks:
                stitcher.extend(chunk)
        stitcher.finish()
    if options.contact_sheet is not None:
        sheet.write_png(options.contact_sheet)
    return joins


def _checked(options: argparse.Namespace) -> list[VideoInfo]:
    """What the clips are. Raises StitchError where they do not fit together, before anything is written."""
    if len(options.clips) < 2:
        raise StitchError(f"clips: got {len(options.clips)}, expected two or more")
    infos = [probe_video(path) for path in options.clips]
    overlap, first = options.overlap, infos[0]
    for number, (path, info) in enumerate(zip(options.clips, infos, strict=True)):
        if (info.width, info.height, info.fps) != (first.width, first.height, first.fps):
            raise StitchError(
                f"{path}: is {info.width}x{info.height} at {info.fps} fps, but {options.clips[0]} is "
                f"{first.width}x{first.height} at {first.fps} fps; convert one of them first"
            )
        needed = overlap * (1 if number in (0, len(infos) - 1) else 2)
        if overlap < 0 or info.num_frames < needed:
            raise StitchError(
                f"--overlap: got {overlap}, expected 0 or more and at most what {path} has to share: its "
                f"{info.num_frames} frames serve {needed // max(overlap, 1)} seam(s)"
            )
    return infos


def _print(joins: list[_Join], options: argparse.Namespace) -> None:
    if options.json:
        seams = [{"clip": str(j.clip), "first_frame": j.first_frame, **j.report.to_json()} for j in joins]
        print(json.dumps({"output": str(options.output), "seams": seams}, indent=1))
        return
    for join in joins:
        report = join.report
        verdict = "passed" if report.passed else f"failed: {', '.join(report.failed_gates)}"
        print(
            f"seam {report.index} at frame {join.first_frame} ({join.clip.name}): {verdict}  "
            f"[change {report.mae_ratio:.2f}, warp error {report.warp_error_ratio:.2f}, "
            f"jerk {report.flow_jerk_ratio:.2f}, sharpness {report.sharpness_ratio:.2f}]"
        )
    print(f"wrote {options.output}")


if __name__ == "__main__":
    sys.exit(main())
