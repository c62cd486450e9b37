"""How many frames a video has, at which rate, and which of them each input gets. Pure."""

from __future__ import annotations

from fractions import Fraction

from farm.capabilities import EngineSpec, FrameRule, Mode
from farm.errors import InvalidInput
from farm.planning.plan import Shot
from farm.request import MAX_FPS, MAX_FRAMES, MIN_FPS, JobRequest, MediaInfo

DEFAULT_SECONDS = 4
#: NTSC rates are so many thousandths and one; with a larger denominator video files lose count.
MAX_FPS_DENOMINATOR = 1001


def is_between_images(request: JobRequest, mode: Mode) -> bool:
    """Whether the images are keyframes of one run of frames; else each begins a shot, and there are cuts."""
    return mode == "infill" and request.mode == "infill" and len(request.inputs) > 1


def fps_of(request: JobRequest, spec: EngineSpec) -> tuple[Fraction, tuple[str, ...]]:
    """The frame rate: as asked, or the input video's, or the model's; rounded to what files can say."""
    wanted = request.fps or request.inputs[0].fps or Fraction(spec.native_fps)
    if not MIN_FPS <= wanted <= MAX_FPS:
        raise InvalidInput(
            f"the input video has {float(wanted):g} frames a second, expected {MIN_FPS} to {MAX_FPS}; "
            "re-encode it, or give fps",
            param="fps",
        )
    fps = wanted.limit_denominator(MAX_FPS_DENOMINATOR)
    return fps, () if fps == wanted else (f"fps {fps} chosen as the nearest to {wanted}",)


def num_frames_of(request: JobRequest, fps: Fraction, window: int, *, between: bool) -> int:
    source = request.inputs[0]
    available = source_frames(source, fps)
    if request.num_frames is not None:
        num_frames = request.num_frames
    elif request.seconds is not None:
        num_frames = max(1, round(request.seconds * fps))
    elif source.kind == "video":
        num_frames = available
    elif between:
        num_frames = (len(request.inputs) - 1) * (window - 1) + 1
    else:
        num_frames = round(DEFAULT_SECONDS * fps) * len(request.inputs)
    if source.kind == "video" and num_frames > available:
        at = "" if fps == source.fps else f" at {float(fps):g} frames a second"
        raise InvalidInput(
            f"{num_frames} frames are asked for, and the input video has {available}{at}; ask for fewer",
            param="frames",
        )
    if num_frames > MAX_FRAMES:
        raise InvalidInput(
            f"{num_frames} frames are asked for, at most {MAX_FRAMES} are made; give fewer frames or seconds",
            param="frames",
        )
    if num_frames < len(request.inputs):
        raise InvalidInput(
            f"{num_frames} frames cannot hold {len(request.inputs)} shots; ask for at least one a shot",
            param="frames",
        )
    return num_frames


def check_mask(request: JobRequest, num_frames: int, fps: Fraction) -> None:
    """
    Raises:
        InvalidInput: the mask ends before the video does.
    """
    mask = request.mask
    if mask is not None and mask.kind == "video" and source_frames(mask, fps) < num_frames:
        raise InvalidInput(
            f"mask has {source_frames(mask, fps)} frames at {float(fps):g} a second, and the video "
            f"{num_frames}; give one as long, or a picture for all of it",
            param="mask",
        )


def source_frames(media: MediaInfo, fps: Fraction) -> int:
    """Frames an input video has at a rate: its length stays what it is. 0 for an image."""
    if media.kind != "video" or media.fps is None:
        return 0
    if media.reading is None:  # taken in by a farm that counted frames
        return media.num_frames
    return max(1, round(media.num_frames * fps / media.fps))


def input_notes(request: JobRequest, fps: Fraction) -> tuple[str, ...]:
    """What is changed of the inputs before anything is rendered over them."""
    notes = [note for media in request.files for note in media.notes]
    source = request.inputs[0]
    if source.kind == "video" and source.fps and source_frames(source, fps) != source.num_frames:
        what = "frames are left out" if fps < source.fps else "frames are repeated"
        notes.append(
            f"the input has {float(source.fps):.6g} frames a second and the video {float(fps):.6g}: {what}, "
            "its length stays"
        )
    return tuple(notes)


def shots_of(
    request: JobRequest, rule: FrameRule, mode: Mode, num_frames: int, *, between: bool
) -> tuple[Shot, ...]:
    """Share the frames over the inputs as evenly as can be; or a shot from each image to the next."""
    inputs = request.inputs
    prompts = request.prompts if len(request.prompts) > 1 else request.prompts * len(inputs)
    if between:
        keys = _image_frames(len(inputs), num_frames, rule.frames_per_latent)
        return tuple(
            Shot(
                index=i,
                start=keys[i],
                end=keys[i + 1] + 1,
                mode=mode,
                prompt=prompts[i],
                media=inputs[i],
                last_media=inputs[i + 1],
            )
            for i in range(len(inputs) - 1)
        )
    bounds = [round(i * num_frames / len(inputs)) for i in range(len(inputs) + 1)]
    return tuple(
        Shot(index=i, start=bounds[i], end=bounds[i + 1], mode=mode, prompt=prompts[i], media=inputs[i])
        for i in range(len(inputs))
    )


def _image_frames(num_images: int, num_frames: int, frames_per_latent: int) -> list[int]:
    """Where images stand that frames are rendered between: evenly, from the first frame to the last.

    Those within stand where a latent ends.

    Raises:
        InvalidInput: there is less than a latent between them.
    """
    last = num_frames - 1
    if last < frames_per_latent * (num_images - 1):
        raise InvalidInput(
            f"{num_frames} frames are too few between {num_images} images; ask for at least "
            f"{frames_per_latent * (num_images - 1) + 1}",
            param="frames",
        )
    gaps = num_images - 1
    within = [frames_per_latent * round(i * last / gaps / frames_per_latent) for i in range(gaps)]
    return [*within, last]
