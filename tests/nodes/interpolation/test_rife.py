"""RIFE with the user's weights: read by their documented layout, and frames between by what it makes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from farm.errors import CannotRun, InvalidInput
from nodes.interpolation import check_chosen, chosen
from nodes.interpolation.choice import DEVICE_VARIABLE, WEIGHTS_VARIABLE
from nodes.interpolation.layout import layout
from stitching.interpolation import Interpolator

pytestmark = pytest.mark.slow

Frames = NDArray[np.uint8]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """``write(prefix, {"name": tensor})``: a file of random weights, these in place, that is chosen."""

    def written(prefix: str = "", changes: dict[str, torch.Tensor] | None = None) -> Path:
        generator = torch.Generator().manual_seed(3)
        tensors = {name: 0.02 * torch.randn(shape, generator=generator) for name, shape in layout().items()}
        tensors |= changes or {}
        path = tmp_path / "rife46.safetensors"
        save_file({prefix + name: tensor for name, tensor in tensors.items()}, path)
        monkeypatch.setenv(WEIGHTS_VARIABLE, str(path))
        return path

    return written


def _still() -> dict[str, torch.Tensor]:
    """Last layers that say nothing: no motion, half of each picture."""
    return {name: torch.zeros(shape) for name, shape in layout().items() if "lastconv" in name}


def test_the_layout_is_that_of_the_published_network() -> None:
    shapes = layout()
    assert shapes["block0.conv0.0.0.weight"] == (96, 7, 3, 3)
    assert shapes["block3.lastconv.0.weight"] == (64, 24, 4, 4)
    assert shapes["block1.convblock.7.beta"] == (1, 128, 1, 1)
    assert len(shapes) == 4 * (2 * 2 + 8 * 3 + 2)


@pytest.mark.parametrize("prefix", ["", "module.", "flownet.module."])
def test_random_weights_make_pictures_of_the_same_size_and_another_for_every_moment(
    write: Write, make_picture: Callable[[int], Frames], prefix: str
) -> None:
    write(prefix)
    check_chosen()
    rife = chosen()
    assert rife is not None
    made = rife(make_picture(1), make_picture(2), [0.25, 0.5])
    assert [picture.shape for picture in made] == [(45, 70, 3)] * 2
    assert made[0].dtype == np.uint8
    assert not np.array_equal(*made)


def test_without_motion_both_pictures_are_mixed_and_with_it_each_is_fetched_from_there(
    write: Write, make_picture: Callable[[int], Frames]
) -> None:
    a, b = make_picture(1), make_picture(2)
    write(changes=_still())
    still = chosen()
    assert still is not None
    (mixed,) = still(a, b, [0.5])
    assert np.abs(mixed - (a.astype(float) + b) / 2).max() <= 1
    # Of the last block, whose pictures are whole: the first flow goes three pixels to the right, and the mask
    # takes the first picture alone. Four channels of the layer are one behind it.
    bias = torch.zeros(24)
    bias[0:4], bias[16:20] = 3.0, 50.0
    write(changes=_still() | {"block3.lastconv.0.bias": bias})
    moved = chosen()
    assert moved is not None
    (fetched,) = moved(a, b, [0.5])
    assert np.abs(fetched[:, :-3].astype(int) - a[:, 3:]).max() <= 1


def test_given_frames_stay_and_nothing_is_made_over_a_cut(
    write: Write, make_picture: Callable[[int], Frames]
) -> None:
    write(changes=_still())
    frames = np.stack([make_picture(1), np.roll(make_picture(1), 1, axis=1), make_picture(9)])
    given: list[Frames] = []
    stream = Interpolator(
        given.append, fps=Fraction(8), deliver_fps=Fraction(16), num_frames=5, between=chosen()
    )
    stream.cut(2)
    stream.write(frames)
    stream.finish()
    made = np.concatenate(given)
    assert np.array_equal(made[[0, 2, 4]], frames)
    assert np.abs(made[1] - (frames[0].astype(float) + frames[1]) / 2).max() <= 1
    assert np.array_equal(made[3], frames[1])


def test_what_cannot_be_used_is_told_before_anything_is_rendered(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write()
    other = {name: t for name, t in load_file(path).items() if "beta" not in name}
    save_file(other, tmp_path / "other.safetensors")
    (tmp_path / "flownet.pkl").write_bytes(b"\x80\x02")
    for name, error, said in (
        (
            "other.safetensors",
            InvalidInput,
            r"is not of RIFE 4\.6, whose block0\.convblock\.0\.beta .* lacks it",
        ),
        ("flownet.pkl", InvalidInput, r"a pickle, which can hold a program .* weights_only=True"),
        ("none.safetensors", CannotRun, "is no file"),
    ):
        monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / name))
        with pytest.raises(error, match=said):
            check_chosen()
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(path))
    monkeypatch.setenv(DEVICE_VARIABLE, "tpu")
    with pytest.raises(InvalidInput, match="expected cpu or cuda"):
        check_chosen()
    monkeypatch.delenv(WEIGHTS_VARIABLE)
    check_chosen()
    assert chosen() is None


def test_the_command_that_converts_a_pickle_gives_a_file_that_is_read(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickled = tmp_path / "flownet.pkl"
    torch.save({f"module.{name}": t for name, t in load_file(write()).items()}, pickled)
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(pickled))
    with pytest.raises(InvalidInput) as refused:
        check_chosen()
    command = refused.value.message.partition('-c "')[2].partition('" ')[0]
    made = tmp_path / "flownet.safetensors"
    subprocess.run([sys.executable, "-c", command, str(pickled), str(made)], check=True)
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(made))
    check_chosen()


@pytest.fixture
def make_picture() -> Callable[[int], Frames]:
    from tests.nodes.engines.conftest import smooth_picture

    def made(number: int) -> Frames:
        picture: Any = smooth_picture(number, 45, 70)
        return np.asarray(picture, np.uint8)

    return made
