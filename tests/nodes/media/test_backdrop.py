"""Start pictures painted from a prompt."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from nodes.media.backdrop import SKIES, Scene, backdrop, scene_of
from nodes.media.backdrop_grounds import GROUNDS


def read(png: bytes) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture


@pytest.mark.parametrize(
    ("prompt", "sky", "ground"),
    [
        ("A sailing boat on the sea at sunset", "sunset", "sea"),
        ("misty mountains, fog in the valleys", "mist", "mountains"),
        ("a forest at night under the stars", "night", "forest"),
        ("rain over the city", "storm", "city"),
        ("a deer between trees, bright morning", "dawn", "forest"),
        ("northern lights over a frozen lake", "aurora", "snow"),
        ("a planet in deep space", "space", "void"),
        ("DUNES OF SAND", None, "desert"),
    ],
)
def test_words_choose_sky_and_ground(prompt: str, sky: str | None, ground: str) -> None:
    scene = scene_of(prompt)
    assert scene.ground == ground
    assert sky is None or scene.sky == sky


def test_a_colour_tints_and_snow_falls_where_it_is_named() -> None:
    assert scene_of("a purple hill").tint is not None
    assert scene_of("a hill").tint is None
    assert scene_of("it is snowing in the forest").snowing
    assert not scene_of("a forest").snowing


def test_what_words_leave_open_is_drawn_from_prompt_and_seed() -> None:
    scenes = {scene_of("a robot dances", seed) for seed in range(40)}
    assert len(scenes) > 4
    assert scene_of("a robot dances", 3) == scene_of("a robot dances", 3)


def test_the_same_words_and_seed_are_the_same_bytes() -> None:
    first = backdrop("a lake at dawn", 7, 160, 96)
    assert backdrop("a lake at dawn", 7, 160, 96) == first
    assert backdrop("a lake at dawn", 8, 160, 96) != first
    assert backdrop("a lake at night", 7, 160, 96) != first


@pytest.mark.parametrize("size", [(16, 16), (64, 96), (1400, 20), (17, 200)])
def test_a_picture_has_the_size_that_was_asked_for(size: tuple[int, int]) -> None:
    assert read(backdrop("a lighthouse", 0, *size)).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("ground", [name for name in GROUNDS if name != "void"])
@pytest.mark.parametrize("sky", ["day", "night"])
def test_every_scenery_is_a_picture_with_light_and_dark_in_it(sky: str, ground: str) -> None:
    words = f"{GROUNDS[ground].words.split()[0]} {SKIES[sky].words.split()[0]}"
    assert scene_of(words) == Scene(sky=sky, ground=ground)
    picture = read(backdrop(words, 1, 96, 64))
    assert picture.max() - picture.min() > 60
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1000


def test_there_is_no_ground_in_space() -> None:
    assert scene_of("a galaxy") == Scene(sky="space", ground="void")
    assert read(backdrop("a galaxy", 1, 192, 128)).max() > 60


def test_the_hour_is_seen_in_the_brightness() -> None:
    day, night = (read(backdrop(f"hills at {hour}", 0, 96, 64)).mean() for hour in ("noon", "night"))
    assert day > 2 * night


@pytest.mark.parametrize("prompt", ["", " ", "\ud800", "海の上の夕日", "x" * 4000, "\x00"])
def test_any_text_is_painted(prompt: str) -> None:
    assert read(backdrop(prompt, 0, 48, 32)).shape == (32, 48, 3)
