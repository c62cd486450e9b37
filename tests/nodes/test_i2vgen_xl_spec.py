from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from farm.engine_spec import EngineSpec, RenderShape, Rung, RungSpec, need_bytes
from farm.errors import CannotRun
from nodes.engines.i2vgen_xl_spec import i2vgen_xl_spec

GIB = 2**30

#: The released model: its configs, and the elements of its components with the largest tensor of each.
FULL_CONFIGS = {
    "unet/config.json": {
        "_class_name": "I2VGenXLUNet",
        "block_out_channels": [320, 640, 1280, 1280],
        "attention_head_dim": 64,
        "cross_attention_dim": 1024,
        "in_channels": 4,
    },
    "vae/config.json": {"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512]},
    "text_encoder/config.json": {},
    "image_encoder/config.json": {},
    "scheduler/scheduler_config.json": {"_class_name": "DDIMScheduler"},
    "feature_extractor/preprocessor_config.json": {},
    "tokenizer/vocab.json": {},
    "tokenizer/merges.txt": {},
    "model_index.json": {},
}
FULL_ELEMENTS = {
    "unet/diffusion_pytorch_model": (1_420_469_224, 2560 * 1280 * 9),
    "vae/diffusion_pytorch_model": (83_653_863, 512 * 512 * 9),
    "text_encoder/model": (352_984_064, 49408 * 1024),
    "image_encoder/model": (632_076_800, 1280 * 5120),
}

#: (height and width, frames, peak GiB, reserved GiB) on an H200, stock pipeline, guided, half precision:
#: everything on the card, 4 frames decoded at once; and UNet and VAE on the card, 1 frame at once.
MEASURED_RESIDENT = [
    (512, 8, 6.70, 8.28),
    (512, 16, 7.29, 9.17),
    (512, 24, 8.58, 10.14),
    (768, 16, 10.52, 14.50),
    (768, 24, 13.43, 16.69),
    (1024, 32, 25.38, 33.54),
]
MEASURED_EVICTED = [(512, 16, 5.45, 6.38), (768, 16, 8.68, 10.61), (768, 24, 11.60, 14.41)]
#: (height and width, frames, peak GiB in one guided pass, peak GiB in two passes): the UNet alone.
MEASURED_UNET = [
    (512, 16, 5.29, 3.99),
    (768, 16, 8.52, 5.61),
    (768, 24, 11.43, 7.06),
    (1024, 32, 23.37, 13.03),
]


def _write_weights(path: Path, tensors: list[int]) -> None:
    """A safetensors file of half-precision tensors with its true header and a hole for the numbers."""
    header, end = {}, 0
    for index, elements in enumerate(tensors):
        header[f"t{index}"] = {"dtype": "F16", "shape": [elements], "data_offsets": [end, end + 2 * elements]}
        end += 2 * elements
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


@pytest.fixture(scope="module")
def full_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    for name, config in FULL_CONFIGS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(config))
    for stem, (elements, largest) in FULL_ELEMENTS.items():
        whole, rest = divmod(elements, largest)
        _write_weights(folder / f"{stem}.fp16.safetensors", [largest] * whole + [rest])
    return folder


@pytest.fixture(scope="module")
def full(full_folder: Path) -> EngineSpec:
    return i2vgen_xl_spec(full_folder, model="i2vgen-xl", revision="0" * 40)


def _rung(spec: EngineSpec, name: Rung) -> RungSpec:
    return next(rung for rung in spec.rungs if rung.name == name)


def _reserved(spec: EngineSpec, rung: Rung, side: int, frames: int, *, guided: bool = True) -> float:
    shape = RenderShape(num_frames=frames, height=side, width=side, num_inference_steps=50, guided=guided)
    return (need_bytes(spec, _rung(spec, rung), shape) - spec.context_bytes) / GIB


@pytest.mark.parametrize(
    ("rung", "row"),
    [*(("resident", row) for row in MEASURED_RESIDENT), *(("evict", row) for row in MEASURED_EVICTED)],
)
def test_the_need_covers_what_was_reserved_on_a_real_card_by_at_most_a_quarter(
    full: EngineSpec, rung: Rung, row: tuple[int, int, float, float]
) -> None:
    side, frames, _, reserved = row
    predicted = _reserved(full, rung, side, frames)
    print(f"{rung} {side}x{side}x{frames}: predicted {predicted:.2f} GiB, reserved {reserved:.2f} GiB")
    assert reserved <= predicted <= 1.25 * reserved


@pytest.mark.parametrize("row", MEASURED_RESIDENT)
def test_without_the_reserve_the_need_is_the_measured_peak_to_five_percent(
    full: EngineSpec, row: tuple[int, int, float, float]
) -> None:
    side, frames, peak, _ = row
    assert _reserved(full, "resident", side, frames) / full.reserve_ratio == pytest.approx(peak, rel=0.05)


@pytest.mark.parametrize("row", MEASURED_UNET)
def test_the_unet_alone_is_predicted_to_five_percent_in_one_pass_and_in_two(
    full: EngineSpec, row: tuple[int, int, float, float]
) -> None:
    side, frames, one_pass, two_passes = row
    resident = ("unet",)
    stages = tuple(s for s in _rung(full, "evict").stages if s.name == "denoise")
    rung = _rung(full, "evict").model_copy(update={"resident": resident, "stages": stages})
    alone = full.model_copy(update={"rungs": (rung,)})
    for guided, measured in ((True, one_pass), (False, two_passes)):
        predicted = _reserved(alone, "evict", side, frames, guided=guided) / full.reserve_ratio
        assert predicted == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize(("side", "frames"), [(512, 8), (512, 16), (768, 16), (768, 24)])
def test_the_ladder_goes_from_the_fastest_rung_to_the_one_that_needs_least(
    full: EngineSpec, side: int, frames: int
) -> None:
    needs = {rung.name: _reserved(full, rung.name, side, frames) for rung in full.rungs}
    slowdowns = [rung.slowdown for rung in full.rungs]
    assert slowdowns == sorted(slowdowns)
    assert max(needs, key=needs.__getitem__) == "resident"
    assert min(needs, key=needs.__getitem__) == "stream_cfg_split"
    assert needs["evict"] > needs["chunk"] > needs["cfg_split"]
    assert needs["stream_cfg_split"] < 0.4 * needs["resident"]


def test_a_4_gib_card_holds_512x512x16_and_a_6_gib_card_1280x704x16(full: EngineSpec) -> None:
    assert _reserved(full, "stream_cfg_split", 512, 16) < 4 - 0.5
    shape = RenderShape(num_frames=16, height=704, width=1280, num_inference_steps=50, guided=True)
    assert need_bytes(full, _rung(full, "stream_cfg_split"), shape) < 6 * GIB


def test_the_full_model_weighs_what_its_files_say(full: EngineSpec) -> None:
    assert full.component_bytes["unet"] == 2 * 1_420_469_224
    assert sum(full.component_bytes.values()) == 2 * 2_489_183_951
    assert full.side_multiple == 64
    assert full.allows_num_frames(1)
    assert full.allows_num_frames(32)
    assert not full.allows_num_frames(33)


def test_a_tiny_model_needs_a_tiny_card(tiny_i2vgen_xl_folder: Path) -> None:
    spec = i2vgen_xl_spec(tiny_i2vgen_xl_folder, model="tiny")
    assert _reserved(spec, "resident", 128, 8) < 0.25
    assert spec.side_multiple == 8


def test_on_a_cpu_weights_are_float32_and_only_rungs_that_save_memory_there_are_offered(
    tiny_i2vgen_xl_folder: Path,
) -> None:
    half = i2vgen_xl_spec(tiny_i2vgen_xl_folder, model="tiny")
    single = half.on("cpu")
    assert single.component_bytes == {name: 2 * size for name, size in half.component_bytes.items()}
    assert [rung.name for rung in single.rungs] == ["resident", "chunk", "cfg_split"]


def test_the_spec_is_read_without_importing_torch_or_diffusers(tiny_i2vgen_xl_folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from nodes.engines.i2vgen_xl_spec import i2vgen_xl_spec; "
        f"i2vgen_xl_spec(Path({str(tiny_i2vgen_xl_folder)!r}), model='tiny'); "
        "print(sorted({'torch', 'diffusers', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "removed",
    ["vae/config.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json", "model_index.json"],
)
def test_a_folder_that_lacks_a_file_is_refused_by_naming_it(
    tiny_i2vgen_xl_folder: Path, tmp_path: Path, removed: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_i2vgen_xl_folder, folder)
    (folder / removed).unlink()
    with pytest.raises(CannotRun, match=removed):
        i2vgen_xl_spec(folder, model="tiny")


def test_pickled_weights_do_not_count_as_weights(tiny_i2vgen_xl_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_i2vgen_xl_folder, folder)
    for path in (folder / "unet").glob("*.safetensors"):
        path.rename(path.with_suffix(".bin"))
    with pytest.raises(CannotRun, match=r"unet/diffusion_pytorch_model\.safetensors"):
        i2vgen_xl_spec(folder, model="tiny")


@pytest.mark.parametrize("damage", [b"", b"\xff" * 40, None])
def test_a_weight_file_cut_short_or_of_another_kind_is_refused(
    tiny_i2vgen_xl_folder: Path, tmp_path: Path, damage: bytes | None
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_i2vgen_xl_folder, folder)
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    with pytest.raises(CannotRun, match="vae"):
        i2vgen_xl_spec(folder, model="tiny")


def test_another_family_of_unet_is_refused(tiny_i2vgen_xl_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_i2vgen_xl_folder, folder)
    (folder / "unet" / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    with pytest.raises(CannotRun, match="UNet2DConditionModel, expected I2VGenXLUNet"):
        i2vgen_xl_spec(folder, model="tiny")
