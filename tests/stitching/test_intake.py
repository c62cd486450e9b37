from __future__ import annotations

import hashlib
import io
import json
import os
import re
import socket
import struct
import subprocess
import sys
import wave
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin

from stitching import intake
from stitching.video_io import VideoWriter, encode_lossless, read_frames


def picture(width: int = 64, height: int = 48) -> Image.Image:
    """Left half orange, right half blue, a green top row of 8 pixels."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :], pixels[:8] = (
        (230, 120, 20),
        (20, 60, 200),
        (30, 200, 40),
    )
    return Image.fromarray(pixels)


def noise(num_frames: int, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 255, (num_frames, height, width, 3)).astype(np.uint8)


def image_bytes(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def video_bytes(frames: NDArray[np.uint8], suffix: str, codec: str, *, audio: bool = False) -> bytes:
    buffer = io.BytesIO()
    form = {"mkv": "matroska"}.get(suffix, suffix)
    with av.open(buffer, "w", format=form) as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=8000) if audio else None
        container.start_encoding()
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
        if sound is not None:
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            samples.sample_rate = 8000
            container.mux(sound.encode(samples))
            container.mux(sound.encode(None))
    return buffer.getvalue()


def faststart_mp4(tmp_path: Path, num_frames: int = 12, width: int = 64, height: int = 48) -> bytes:
    with VideoWriter(tmp_path / "made.mp4", fps=Fraction(25), width=width, height=height) as writer:
        writer.write(noise(num_frames, width, height))
    return (tmp_path / "made.mp4").read_bytes()


def wav_bytes() -> bytes:
    """Half a second of silence."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(bytes(8000))
    return buffer.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A tiny PNG whose header claims any size."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def webp_claiming(width: int, height: int) -> bytes:
    body = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + body


@pytest.fixture
def take_in(tmp_path: Path) -> Callable[..., intake.Described]:
    def run(content: bytes, name: str = "file.bin") -> intake.Described:
        (tmp_path / name).write_bytes(content)
        (tmp_path / "out").mkdir(exist_ok=True)
        return intake.normalise_file(tmp_path / name, tmp_path / "out")

    return run


@pytest.fixture
def refusal(take_in: Callable[..., intake.Described]) -> Callable[..., str]:
    """The message a file is refused with, known to be one line."""

    def run(content: bytes, name: str = "file.bin") -> str:
        with pytest.raises(intake.IntakeError) as caught:
            take_in(content, name)
        message = str(caught.value)
        assert "\n" not in message
        assert message.endswith(".")
        assert name in message
        return message

    return run


def pixels_of(described: intake.Described) -> NDArray[np.uint8]:
    with Image.open(str(described["path"])) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image)


# ------------------------------------------------------------------------------------------- what is accepted


@pytest.mark.parametrize(("kind", "tolerance"), [("PNG", 0), ("JPEG", 12), ("WEBP", 12)])
def test_an_image_is_known_by_its_bytes_and_becomes_a_png(
    take_in: Callable[..., intake.Described], kind: str, tolerance: int
) -> None:
    described = take_in(image_bytes(picture(), kind, quality=95), "named-wrongly.mp4")
    found = pixels_of(described)
    assert (described["kind"], described["num_frames"], described["fps"]) == ("image", 1, None)
    assert (described["width"], described["height"]) == (64, 48)
    assert np.abs(found[20, 10].astype(int) - (230, 120, 20)).max() <= tolerance
    path = Path(str(described["path"]))
    assert path.stem == described["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_exif_orientation_is_applied_and_all_metadata_is_gone(
    take_in: Callable[..., intake.Described],
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter to the right for display
    exif[0x010F] = "SecretCamera"
    described = take_in(image_bytes(picture(), "JPEG", exif=exif, comment=b"SecretComment", quality=95))
    found = pixels_of(described)
    assert found.shape == (64, 48, 3)
    assert found[20, -3, 1] > 150, "the green top row is on the right now"
    content = Path(str(described["path"])).read_bytes()
    assert b"Secret" not in content
    with Image.open(io.BytesIO(content)) as image:
        assert image.info == {}


def test_png_text_is_stripped(take_in: Callable[..., intake.Described]) -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("prompt", "SecretPrompt")
    described = take_in(image_bytes(picture(), "PNG", pnginfo=text))
    assert b"SecretPrompt" not in Path(str(described["path"])).read_bytes()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_is_laid_on_white(take_in: Callable[..., intake.Described], kind: str) -> None:
    image = picture().convert("RGBA")
    alpha = np.full((48, 64), 255, np.uint8)
    alpha[:, :16], alpha[:, 16:32] = 0, 128
    image.putalpha(Image.fromarray(alpha))
    found = pixels_of(take_in(image_bytes(image, kind, lossless=True))).astype(int)
    assert found[30, 5].tolist() == [255, 255, 255]
    assert np.abs(found[30, 20] - (242, 187, 137)).max() <= 2
    assert found[30, 50].tolist() == [20, 60, 200]


def test_a_palette_image_with_a_transparent_colour_becomes_rgb_on_white(
    take_in: Callable[..., intake.Described],
) -> None:
    image = picture().quantize(4)
    index = image.getpixel((10, 20))
    found = pixels_of(take_in(image_bytes(image, "PNG", transparency=index)))
    assert found[20, 10].tolist() == [255, 255, 255]
    assert np.abs(found[20, 50].astype(int) - (20, 60, 200)).max() <= 3


def test_16_bit_grey_is_scaled_and_not_clipped(take_in: Callable[..., intake.Described]) -> None:
    grey = np.full((32, 32), 32768, np.uint16)
    found = pixels_of(take_in(cv2.imencode(".png", grey)[1].tobytes()))
    assert set(found.ravel().tolist()) == {128}


def test_16_bit_colour_is_scaled_and_not_clipped(take_in: Callable[..., intake.Described]) -> None:
    colour = np.full((32, 32, 3), (1000, 30000, 60000), np.uint16)  # blue, green, red
    found = pixels_of(take_in(cv2.imencode(".png", colour)[1].tobytes())).astype(int)
    assert np.abs(found[0, 0] - (233, 117, 4)).max() <= 1


def test_floating_point_pixels_are_refused_and_not_shown_black(refusal: Callable[..., str]) -> None:
    assert "has floating-point pixels" in refusal(image_bytes(Image.new("F", (64, 64), 0.5), "TIFF"))


def test_cmyk_keeps_its_colours(take_in: Callable[..., intake.Described]) -> None:
    found = pixels_of(take_in(image_bytes(picture().convert("CMYK"), "JPEG", quality=95))).astype(int)
    assert np.abs(found[30, 50] - (20, 60, 200)).max() <= 12


def test_an_embedded_colour_profile_is_converted_to_srgb(take_in: Callable[..., intake.Described]) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    count = struct.unpack(">I", profile[128:132])[0]
    tags = profile[132 : 132 + 12 * count]
    swapped = tags.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    profile = profile.replace(tags, swapped)
    red = Image.new("RGB", (32, 32), (250, 0, 0))
    found = pixels_of(take_in(image_bytes(red, "PNG", icc_profile=profile)))[0, 0].astype(int)
    assert found[1] > 240
    assert found[0] < 30


def test_a_broken_colour_profile_does_no_harm(take_in: Callable[..., intake.Described]) -> None:
    found = pixels_of(take_in(image_bytes(picture(), "PNG", icc_profile=b"nonsense" * 30)))
    assert np.array_equal(found, np.asarray(picture()))


def test_a_phone_jpeg_of_several_pictures_gives_its_first(take_in: Callable[..., intake.Described]) -> None:
    content = image_bytes(picture(), "MPO", save_all=True, append_images=[Image.new("RGB", (32, 32))])
    assert pixels_of(take_in(content)).shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mp4", "libx264"), ("mov", "mpeg4"), ("mkv", "ffv1"), ("webm", "libvpx"), ("avi", "mpeg4")],
)
def test_a_video_is_counted_and_kept_as_it_is(
    take_in: Callable[..., intake.Described], suffix: str, codec: str
) -> None:
    content = video_bytes(noise(7), suffix, codec)
    described = take_in(content, "clip.bin")
    path = Path(str(described["path"]))
    assert path.read_bytes() == content
    assert path.name == f"{hashlib.sha256(content).hexdigest()}.{suffix}"
    assert (described["kind"], described["num_frames"], described["fps"]) == ("video", 7, "25/1")
    assert (described["width"], described["height"]) == (64, 48)
    assert read_frames(path).shape == (7, 48, 64, 3)


def test_sound_beside_the_pictures_is_ignored(take_in: Callable[..., intake.Described]) -> None:
    assert take_in(video_bytes(noise(5), "mkv", "mpeg4", audio=True))["num_frames"] == 5


# -------------------------------------------------------------------------------------------- what is refused


def test_a_sound_file_is_taken_as_it_is_and_told(take_in: Callable[..., intake.Described]) -> None:
    content = wav_bytes()
    described = take_in(content, "song.wav")
    assert (described["kind"], described["width"], described["num_frames"]) == ("audio", 0, 0)
    assert Path(described["path"]).read_bytes() == content
    assert described["sound"] == {
        "codec": "pcm_s16le",
        "sample_rate": 8000,
        "channels": 1,
        "start_s": 0.0,
        "end_s": 0.5,
        "num_tracks": 1,
        "is_one_format": True,
    }


def test_a_sound_file_without_a_sound_is_refused(refusal: Callable[..., str]) -> None:
    assert "holds no sound that can be decoded" in refusal(wav_bytes()[:44], "song.wav")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(intake.IntakeError, match=r"^gone\.png does not exist; check the path\.$"):
        intake.normalise_file(tmp_path / "gone.png", tmp_path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(intake.IntakeError, match="is a folder"):
        intake.normalise_file(tmp_path, tmp_path)


def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(image_bytes(picture(), "PNG"))
    path.chmod(0)
    was = os.geteuid()
    try:
        if was == 0:  # root may read everything
            os.seteuid(65534)
        with pytest.raises(intake.IntakeError, match="may not be read by this user; change its permissions"):
            intake.normalise_file(path, tmp_path)
    finally:
        os.seteuid(was)


def test_a_pipe_that_nobody_writes_to_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(intake.IntakeError, match=r"pipe\.png is a device or a pipe"):
        intake.normalise_file(tmp_path / "pipe.png", tmp_path)


def test_a_device_and_a_socket_are_refused(tmp_path: Path) -> None:
    with pytest.raises(intake.IntakeError, match="zero is a device or a pipe"):
        intake.normalise_file(Path("/dev/zero"), tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with pytest.raises(intake.IntakeError, match="s cannot be opened"):
            intake.normalise_file(tmp_path / "s", tmp_path)


def test_an_empty_file_is_refused(refusal: Callable[..., str]) -> None:
    assert "is empty (0 bytes)" in refusal(b"", "empty.png")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"hello, I am a text file\n" * 9, "a text file"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF document"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><svg/>", "an SVG"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "a playlist"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "a playlist"),
        (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n", "a playlist"),
        (b"[playlist]\nFile1=http://x/\n", "a playlist"),
        (b"BM\x00\x00\x00\x00", "neither an image nor a video"),
        (b"II*\x00\x08\x00", "a broken header"),
        (bytes(range(200, 250)), "neither an image nor a video"),
        (b"\x7fELF\x02\x01", "neither an image nor a video"),
    ],
)
@pytest.mark.parametrize("name", ["posing.png", "posing.mp4"])
def test_a_file_of_another_type_is_named_for_what_it_is(
    refusal: Callable[..., str], content: bytes, says: str, name: str
) -> None:
    assert says in refusal(content, name)


def two_frames(kind: str) -> bytes:
    return image_bytes(picture(), kind, save_all=True, append_images=[picture().rotate(180)], duration=100)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_of_an_animation_the_first_picture_is_taken_and_that_is_said(
    take_in: Callable[..., intake.Described], kind: str
) -> None:
    described = take_in(two_frames(kind), "moving.png")
    more = "" if kind == "TIFF" else " (with --clip, or clip in the API, it is a video)"
    assert described["notes"] == [f"moving.png holds 2 pictures, the first is taken{more}"]
    assert np.abs(pixels_of(described).astype(int) - np.asarray(picture()).astype(int)).mean() < 12


@pytest.mark.parametrize("content", [png_claiming(50_000, 50_000), webp_claiming(16_383, 16_383)])
def test_a_picture_of_too_many_pixels_is_refused_from_its_header(
    refusal: Callable[..., str], content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("the pixels were decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    assert "at most 210 million pixels are taken, make it smaller" in refusal(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_photo_larger_than_a_video_is_scaled_down_upright_and_that_is_said(
    take_in: Callable[..., intake.Described], kind: str
) -> None:
    photo = Image.new("RGB", (4608, 48), "blue")
    photo.paste("red", (0, 0, 2304, 48))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by 90 degrees to the right
    described = take_in(image_bytes(photo, kind, exif=turned), "photo.jpg")
    assert described["notes"] == ["photo.jpg is 4608x48, scaled down to 4096x43"]
    shown = pixels_of(described)
    assert shown.shape == (4096, 43, 3)
    assert np.abs(shown[100, 20].astype(int) - (255, 0, 0)).max() < 6
    assert np.abs(shown[-100, 20].astype(int) - (0, 0, 255)).max() < 6


def test_what_is_left_of_a_very_long_picture_is_said_with_its_refusal(refusal: Callable[..., str]) -> None:
    message = refusal(image_bytes(Image.new("L", (20_000, 32)), "PNG"), "strip.png")
    assert "is 4096x7 (is 20000x32, scaled down to 4096x7); at least 16x16 is needed" in message


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_pixels_of_every_kind_are_scaled_down(take_in: Callable[..., intake.Described], mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((64, 5000), 32_896, np.uint16))
    else:
        image = Image.new("RGB", (5000, 64), (128, 128, 128)).convert(mode)
    described = take_in(image_bytes(image, "TIFF"))
    assert (described["width"], described["height"]) == (4096, 52)
    assert abs(int(pixels_of(described).mean()) - 128) < 3


@pytest.mark.parametrize(("kind", "tolerance"), [("GIF", 8), ("TIFF", 0), ("BMP", 0), ("AVIF", 8)])
def test_pictures_of_cameras_scanners_and_old_programs_are_taken(
    take_in: Callable[..., intake.Described], kind: str, tolerance: int
) -> None:
    described = take_in(image_bytes(picture(), kind))
    assert (described["kind"], described["notes"]) == ("image", [])
    assert np.abs(pixels_of(described).astype(int) - np.asarray(picture()).astype(int)).mean() <= tolerance


def test_a_phone_s_heic_is_taken(take_in: Callable[..., intake.Described]) -> None:
    pillow_heif.register_heif_opener()
    described = take_in(image_bytes(picture(), "HEIF", quality=95), "IMG_1.HEIC")
    assert np.abs(pixels_of(described).astype(int) - np.asarray(picture()).astype(int)).mean() < 8


def test_a_heic_without_its_plugin_says_what_to_install(
    refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert "install pillow-heif" in refusal(b"\x00\x00\x00\x20ftypheic\x00\x00\x00\x00mif1heic", "a.heic")


def test_a_raw_file_s_preview_is_not_taken_for_the_photo(refusal: Callable[..., str]) -> None:
    preview = TiffImagePlugin.ImageFileDirectory_v2()
    preview[254] = 1
    message = refusal(image_bytes(picture(), "TIFF", tiffinfo=preview))
    assert "is a camera's raw file, which is not developed here" in message


@pytest.mark.parametrize("size", [(15, 64), (64, 15), (1, 1)])
def test_a_tiny_image_is_refused(refusal: Callable[..., str], size: tuple[int, int]) -> None:
    message = refusal(image_bytes(Image.new("RGB", size), "PNG"))
    assert f"{size[0]}x{size[1]}; at least 16x16" in message


def test_the_smallest_and_the_largest_side_are_accepted(take_in: Callable[..., intake.Described]) -> None:
    described = take_in(image_bytes(Image.new("RGB", (4096, 16)), "PNG"))
    assert (described["width"], described["height"]) == (4096, 16)


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_image_is_refused(refusal: Callable[..., str], kind: str, kept: float) -> None:
    content = image_bytes(Image.fromarray(noise(1, 200, 200)[0]), kind)
    message = refusal(content[: int(len(content) * kept)])
    assert "cut off or damaged" in message or "broken header" in message


def test_an_image_cut_inside_its_header_is_refused(refusal: Callable[..., str]) -> None:
    for kind in ("PNG", "JPEG", "WEBP"):
        assert "broken header" in refusal(image_bytes(picture(), kind)[:18])


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "libx264"), ("mov", "mpeg4"), ("mkv", "ffv1"), ("avi", "mpeg4")]
)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_truncated_video_is_refused(
    refusal: Callable[..., str], suffix: str, codec: str, kept: float
) -> None:
    content = video_bytes(noise(12), suffix, codec)
    assert "is cut off" in refusal(content[: int(len(content) * kept)])


def test_a_truncated_mp4_with_its_index_first_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    content = faststart_mp4(tmp_path)
    assert content.index(b"moov") < content.index(b"mdat")
    assert "is cut off" in refusal(content[: int(len(content) * 0.6)])
    assert "is cut off" in refusal(content[:-1])


def test_a_lossless_clip_cut_by_one_byte_is_refused(refusal: Callable[..., str]) -> None:
    assert "is cut off" in refusal(encode_lossless(noise(4), Fraction(25))[:-1])


def test_a_video_with_damaged_pictures_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    content = bytearray(faststart_mp4(tmp_path))
    content[-8000:] = bytes(8000)
    message = refusal(bytes(content))
    assert "frames can be decoded" in message or "cannot be decoded" in message


def test_a_recording_that_was_never_finished_is_refused(refusal: Callable[..., str]) -> None:
    content = video_bytes(noise(12), "mp4", "libx264")
    assert "is cut off" in refusal(content[: content.index(b"moov") - 4])


def test_bytes_after_the_end_of_an_mp4_do_no_harm(
    take_in: Callable[..., intake.Described], tmp_path: Path
) -> None:
    assert take_in(faststart_mp4(tmp_path) + bytes(50))["num_frames"] == 12


@pytest.mark.parametrize("muxer", ["matroska", "mp4"])
def test_a_sound_in_a_container_of_videos_is_a_sound(
    take_in: Callable[..., intake.Described], tmp_path: Path, muxer: str
) -> None:
    """As browsers record it, and as it is taken from videos of the web."""
    path = tmp_path / "memo"
    with av.open(str(path), "w", format=muxer) as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 44100
        container.mux(stream.encode(samples))
        container.mux(stream.encode(None))
    taken = take_in(path.read_bytes())
    assert (taken["kind"], taken["sound"]["codec"]) == ("audio", "aac")


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "avi"])
def test_a_video_without_frames_is_refused(refusal: Callable[..., str], suffix: str) -> None:
    message = refusal(video_bytes(noise(0), suffix, "mpeg4"))
    assert re.search("no video stream|no frames|0 frames|End of file", message)


def test_a_video_of_8194_pixels_a_side_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    assert "make it 8192x8192 or smaller" in refusal(faststart_mp4(tmp_path, 1, 8194, 16))


def test_a_tiny_video_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    assert "8x8; at least 16x16" in refusal(faststart_mp4(tmp_path, 2, 8, 8))


def test_a_video_with_too_many_frames_is_refused(
    refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "MAX_VIDEO_FRAMES", 5)
    assert "has more than 5 frames" in refusal(video_bytes(noise(6), "mkv", "mpeg4"))


def test_a_file_over_the_size_cap_is_refused_before_it_is_read(
    refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "MAX_IMAGE_BYTES", 100)
    monkeypatch.setattr(intake, "MAX_VIDEO_BYTES", 100)
    assert "at most" in refusal(image_bytes(picture(), "PNG"))
    assert "at most" in refusal(video_bytes(noise(2), "mkv", "mpeg4"))


# ------------------------------------------------------------------------------------------- the command line


def run_module(source: Path, output_dir: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stitching.intake", str(source), str(output_dir)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_module_prints_one_json_line(tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(image_bytes(picture(), "PNG"))
    done = run_module(tmp_path / "in.png", tmp_path)
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, 1, "")
    described = json.loads(done.stdout)
    assert list(described) == ["kind", "width", "height", "num_frames", "fps", "sha256", "path", "notes"]
    assert Path(described["path"]).is_file()


@pytest.mark.slow
def test_the_module_prints_one_json_line_with_the_error_and_exits_2(tmp_path: Path) -> None:
    path = tmp_path / "evil\n\x1b[31m.png"
    path.write_bytes(b"text")
    done = run_module(path, tmp_path)
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (2, 1, "")
    assert json.loads(done.stdout)["error"].startswith("evil??[31m.png is a text file")


def test_progress_is_a_line_now_and_then_and_more_of_the_processor(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed: list[tuple[float, float]] = []
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.process_time", lambda: 41.2)
    monkeypatch.setattr("resource.getrlimit", lambda limit: (30, -1))
    monkeypatch.setattr("resource.setrlimit", lambda limit, value: allowed.append(value))
    told = intake._Told()
    for now[0], num_frames in ((100.5, 10), (101.0, 20), (101.9, 30), (102.0, 40)):
        told(num_frames, None)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"num_frames": 20, "share": None}, {"num_frames": 40, "share": None}]
    assert allowed == [(42 + 30, -1)] * 2
