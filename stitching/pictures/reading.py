"""A picture's pixels: decoded, made smaller while it is still cheap, upright, 8 bits, sRGB, on white."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from stitching.pictures.kinds import MAX_PIXELS, PictureError, formats, webp_sides

if TYPE_CHECKING:
    from PIL import Image

_HEAD_BYTES = 64
_SAY_ORIENTATION = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")
# Tags of TIFF and EXIF.
_ORIENTATION, _SUBFILE_TYPE, _DNG_VERSION = 274, 254, 50706
#: Formats of Pillow in which pictures follow each other in time.
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
#: Browsers show a picture for a tenth of a second that says so little, or nothing.
_TOO_SHORT_MS, _INSTEAD_MS = 10, 100
#: Rows of 16-bit grey that are scaled at a time.
_ROWS = 256


@dataclass(frozen=True)
class Picture:
    """pixels: an RGB image without metadata. notes: what was changed, each a clause about the file."""

    pixels: Image.Image
    notes: tuple[str, ...]


def read_picture(file: BinaryIO, max_side: int) -> Picture:
    """Decode a picture that ``is_picture``, its sides at most ``max_side`` pixels.

    Of an animation, or of several pages, the first picture is taken. One that is larger is scaled down; a
    JPEG is already decoded smaller. It takes four to sixteen bytes of memory for each of its pixels.

    Raises:
        PictureError: it is damaged, larger than ``MAX_PIXELS``, or of a kind this machine cannot read.
    """
    from PIL import Image, ImageOps

    head = file.read(_HEAD_BYTES)
    file.seek(0)
    readers = formats(head)
    if readers == ("WEBP",):
        _check_pixels(*webp_sides(head))  # Pillow reserves two canvases before it tells the size
    if "HEIF" in readers:
        _add_heif()
    Image.MAX_IMAGE_PIXELS = None  # the sides are checked below, with a clearer message
    try:
        image: Image.Image = Image.open(file, formats=readers)
    except MemoryError:
        raise
    except Exception:  # decoders of hostile bytes fail in every way there is
        raise PictureError(_unread(head)) from None
    width, height = image.size
    _check_pixels(width, height)
    if image.format == "TIFF" and _is_raw(image):
        raise PictureError("is a camera's raw file, which is not developed here; export it as JPEG or TIFF")
    if image.mode == "F":
        raise PictureError("has floating-point pixels, whose white nobody knows; export it as PNG or JPEG")
    notes = []
    # A phone's JPEG may hold several pictures (MPO: depth, gain map); the first is the photo.
    num_pictures = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if num_pictures > 1 and image.format != "HEIF":
        as_video = " (with --clip, or clip in the API, it is a video)" if image.format in _ANIMATED else ""
        notes.append(f"holds {num_pictures} pictures, the first is taken{as_video}")
    try:
        if max(width, height) > max_side:
            shrink = max_side / max(width, height)
            image.draft(None, (round(width * shrink), round(height * shrink)))  # a JPEG, at 1/2, 1/4 or 1/8
        image.load()
        profile = image.info.get("icc_profile")
        pixels = _eight_bits(image)
        if max(width, height) > max_side:
            pixels.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=2.0)
            notes.append(f"is {width}x{height}, scaled down to {pixels.width}x{pixels.height}")
        pixels = ImageOps.exif_transpose(_with_orientation_of(image, pixels))
        rgb = _in_srgb(_on_white(pixels), profile)
    except MemoryError:
        raise
    except Exception:
        raise PictureError(
            "is cut off or damaged: its pixels cannot be decoded; copy or export it again"
        ) from None
    # Pixels alone: no profile, text or EXIF.
    return Picture(Image.frombytes("RGB", rgb.size, rgb.tobytes()), tuple(notes))


def read_animation(file: BinaryIO) -> Iterator[tuple[Image.Image, int]] | None:
    """The pictures of an animated GIF, PNG, WebP or AVIF, RGB, each with the milliseconds it is shown for.

    None: the picture is none of these, or stands still. Raises PictureError as ``read_picture`` does.
    """
    from PIL import Image

    head = file.read(_HEAD_BYTES)
    file.seek(0)
    readers = formats(head)
    if readers == ("WEBP",):
        _check_pixels(*webp_sides(head))
    Image.MAX_IMAGE_PIXELS = None
    try:
        image = Image.open(file, formats=[name for name in readers if name in _ANIMATED])
        num_pictures = getattr(image, "n_frames", 1)
    except MemoryError:
        raise
    except Exception:  # ``read_picture`` says what it is, if it is anything
        return None
    _check_pixels(*image.size)
    return _pictures(image, num_pictures) if num_pictures > 1 else None


def _pictures(image: Image.Image, num_pictures: int) -> Iterator[tuple[Image.Image, int]]:
    for number in range(num_pictures):
        try:
            image.seek(number)
            image.load()
            rgb = _in_srgb(_on_white(_eight_bits(image)), image.info.get("icc_profile"))
        except MemoryError:
            raise
        except Exception:
            raise PictureError(
                f"is cut off or damaged: its picture {number} cannot be decoded; export it again"
            ) from None
        shown_ms = round(image.info.get("duration") or 0)
        yield rgb, shown_ms if shown_ms > _TOO_SHORT_MS else _INSTEAD_MS


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise PictureError(
            f"is {width}x{height}; at most {MAX_PIXELS // 10**6} million pixels are taken, make it smaller"
        )


def _is_raw(image: Image.Image) -> bool:
    """Whether a TIFF's first picture is but the preview of a raw one."""
    tags = getattr(image, "tag_v2", {})
    return _DNG_VERSION in tags or bool(tags.get(_SUBFILE_TYPE, 0) & 1)


def _unread(head: bytes) -> str:
    if "HEIF" in formats(head) and not _add_heif():
        return (
            "is a HEIC image, which this machine cannot read; install pillow-heif, or save it as JPEG or PNG"
        )
    return "has a broken header; export it again as PNG or JPEG"


def _add_heif() -> bool:
    """Let Pillow read HEIC; False where its plugin is not installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    return True


def _with_orientation_of(image: Image.Image, pixels: Image.Image) -> Image.Image:
    """The pixels, told to lie as the file says."""
    pixels.info = {key: image.info[key] for key in _SAY_ORIENTATION if key in image.info}
    pixels.getexif().update({tag: value for tag, value in image.getexif().items() if tag == _ORIENTATION})
    return pixels


def _eight_bits(image: Image.Image) -> Image.Image:
    """8 bits a channel, with alpha where there is transparency; colours as they are stored."""
    from PIL import Image

    if image.mode.startswith("I"):
        # 16-bit grey; Pillow's own conversion clips at 255 instead of scaling
        import numpy as np

        grey = np.empty((image.height, image.width), np.uint8)
        for top in range(0, image.height, _ROWS):
            rows = image.crop((0, top, image.width, min(top + _ROWS, image.height)))
            grey[top : top + rows.height] = np.clip(
                np.rint(np.asarray(rows).astype(np.float64) / 257), 0, 255
            )
        return Image.fromarray(grey)
    if image.has_transparency_data:
        return image.convert("RGBA")
    # What is indexed or black and white cannot be made smaller smoothly.
    return image.convert("RGB") if image.mode in ("P", "1") else image


def _on_white(image: Image.Image) -> Image.Image:
    """Transparency laid on white, as web pages and viewers show it."""
    from PIL import Image

    if image.mode != "RGBA":
        return image
    flat = Image.new("RGB", image.size, "white")
    flat.paste(image, mask=image.getchannel("A"))
    return flat


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The image as sRGB. A profile that is broken or made for other channels is not used."""
    if profile:
        from PIL import ImageCms

        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None
        if converted is not None:
            return converted
    return image.convert("RGB")
