"""How many frames a video has, at which rate, and which of them each input gets. Pure."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from farm.capabilities import EngineSpec, FrameRule, Mode
from farm.errors import InvalidInput
from farm.planning.plan import Delivery, Shot
from farm.request import MAX_FPS, MAX_FRAMES, MIN_FPS, JobRequest, MediaInfo

DEFAULT_SECONDS = 4
#: NTSC rates are so many thousandths and one; with a larger denominator video files lose count.
MAX_FPS_DENOMINATOR = 1001


def is_between_images(request: JobRequest, mode: Mode) -> bool:
    """Whether the images are keyframes of one run of frames; else each begins a shot, and there are cuts."""
    return mode == "infill" and request.mode == "infill" and len(request.inputs) > 1


def fps_of(request: JobRequest, spec: EngineSpec) -> tuple[Fraction, tuple[str, ...]]:
    """The frame rate: as asked, or the input video's, or the model's; rounded to what files can say."""
    own = request.source.fps if request.source is not None else None
    wanted = request.fps or own or Fraction(spec.native_fps)
    if not MIN_FPS <= wanted <= MAX_FPS:
        raise InvalidInput(
            f"the input video has {float(wanted):g} frames a second, expected {MIN_FPS} to {MAX_FPS}; "
            "re-encode it, or give fps",
            param="fps",
        )
    fps = wanted.limit_denominator(MAX_FPS_DENOMINATOR)
    return fps, () if fps == wanted else (f"fps {fps} chosen as the nearest to {wanted}",)


def deliver_fps_of(request: JobRequest, fps: Fraction) -> Fraction:
    """The rate of what is published: as asked, where that is more than is rendered."""
    return max((request.deliver_fps or fps).limit_denominator(MAX_FPS_DENOMINATOR), fps)


def num_frames_of(
    request: JobRequest, fps: Fraction, deliver_fps: Fraction, window: int, *, between: bool
) -> tuple[int, int]:
    """Frames that are rendered, and frames that are published: as many as are asked for.

    The last rendered frame is the first at or behind the moment of the last published one.
    """
    source, step = request.source, fps / deliver_fps
    available = source_frames(source, fps) if source is not None else 0
    longest = max(1, round(available / step))
    if request.num_frames is not None:
        num_delivered = request.num_frames
    elif request.seconds is not None:
        num_delivered = max(1, round(request.seconds * deliver_fps))
    elif request.kind == "video":
        num_delivered = longest
    elif between:
        num_delivered = int((len(request.inputs) - 1) * (window - 1) / step) + 1
    else:
        num_delivered = round(DEFAULT_SECONDS * deliver_fps) * request.num_shots
    num_frames = ceil((num_delivered - 1) * step) + 1
    if source is not None and source.kind == "video":
        num_frames = min(num_frames, available)  # behind its last frame that one stays
        if num_delivered > longest:
            at = "" if deliver_fps == source.fps else f" at {float(deliver_fps):g} frames a second"
            raise InvalidInput(
                f"{num_delivered} frames are asked for, and the input video has {longest}{at}; ask for fewer",
                param="frames",
            )
    if num_delivered > MAX_FRAMES:
        raise InvalidInput(
            f"{num_delivered} frames are asked for, at most {MAX_FRAMES} are made; "
            "give fewer frames or seconds",
            param="frames",
        )
    if num_frames < request.num_shots:
        raise InvalidInput(
            f"{num_frames} frames cannot hold {request.num_shots} shots; ask for at least one a shot",
            param="frames",
        )
    return num_frames, num_delivered


def delivery_notes(
    request: JobRequest, num_frames: int, fps: Fraction, delivery: Delivery | None
) -> tuple[str, ...]:
    """What is said of the frames between the rendered ones."""
    if request.deliver_fps is None:
        return ()
    if delivery is None:
        return (
            f"{float(fps):.6g} frames a second are rendered and {float(request.deliver_fps):.6g} asked for: "
            "nothing is interpolated, and no frame is left out",
        )
    held = (num_frames - 1) / fps < (delivery.num_frames - 1) / delivery.fps
    return (
        f"{num_frames} frames are rendered at {float(fps):.6g} a second and interpolated to "
        f"{delivery.num_frames} at {float(delivery.fps):.6g}, but not over cuts"
        + ("; the last one stays to the end" if held else ""),
    )


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
    source = request.source
    if (
        source is not None
        and source.kind == "video"
        and source.fps
        and source_frames(source, fps) != source.num_frames
    ):
        what = "frames are left out" if fps < source.fps else "frames are repeated"
        notes.append(
            f"the input has {float(source.fps):.6g} frames a second and the video {float(fps):.6g}: {what}, "
            "its length stays"
        )
    return tuple(notes)


def shots_of(
    request: JobRequest, rule: FrameRule, mode: Mode, num_frames: int, *, between: bool
) -> tuple[Shot, ...]:
    """Share the frames over the inputs, or over the prompts, as evenly as can be; or a shot from each image
    to the next."""
    inputs, count = request.inputs, request.num_shots
    prompts = request.prompts if len(request.prompts) > 1 else request.prompts * count
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
    bounds = [round(i * num_frames / count) for i in range(count + 1)]
    return tuple(
        Shot(
            index=i,
            start=bounds[i],
            end=bounds[i + 1],
            mode=mode,
            prompt=prompts[i],
            media=inputs[i] if inputs else None,
        )
        for i in range(count)
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
