"""Components that are saved in several files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from farm.errors import CannotRun
from nodes.engines.folders.headers import tensor_sizes
from nodes.engines.folders.layout import check_folder, variant
from nodes.engines.i2vgen_xl.layout import LAYOUT

STEM = LAYOUT.weights["unet"]


@pytest.fixture
def sharded(tiny_i2vgen_xl_folder: Path, tmp_path: Path) -> Path:
    """The model with every component in half precision, the UNet's files of at most 300 kB."""
    from diffusers import I2VGenXLUNet

    folder = tmp_path / "sharded"
    shutil.copytree(tiny_i2vgen_xl_folder, folder, ignore=shutil.ignore_patterns("unet", "*.fp16.*"))
    unet = I2VGenXLUNet.from_pretrained(tiny_i2vgen_xl_folder / "unet")  # type: ignore[no-untyped-call]
    unet.half().save_pretrained(folder / "unet", max_shard_size="300KB")
    return folder


def test_a_component_in_several_files_has_the_tensors_of_the_one_in_a_single_file(
    sharded: Path, tiny_i2vgen_xl_folder: Path
) -> None:
    assert len(list((sharded / "unet").glob("*.safetensors"))) > 1
    check_folder(sharded, LAYOUT)
    single = tensor_sizes(tiny_i2vgen_xl_folder / "unet", STEM)
    assert sorted(tensor_sizes(sharded / "unet", STEM)) == sorted(single)
    assert variant(sharded / "unet", STEM, half=True) is None


@pytest.mark.slow
def test_a_component_in_several_files_renders_what_the_single_file_does(
    sharded: Path, tiny_i2vgen_xl_folder: Path
) -> None:
    import torch

    from nodes.engines.i2vgen_xl.loading import read_model

    unets = [
        read_model(folder, dtype=torch.float16, attention="sdpa").components["unet"].state_dict()
        for folder in (sharded, tiny_i2vgen_xl_folder)
    ]
    assert unets[0].keys() == unets[1].keys()
    assert all(torch.equal(unets[0][name], unets[1][name]) for name in unets[0])


def test_a_component_that_lacks_one_of_its_files_is_refused_by_naming_it(sharded: Path) -> None:
    lost = sorted((sharded / "unet").glob("*.safetensors"))[0]
    lost.unlink()
    with pytest.raises(CannotRun, match=f"lacks unet/{lost.name}"):
        check_folder(sharded, LAYOUT)
