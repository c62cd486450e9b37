from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farm.capabilities.engine_spec import EngineSpec, RenderShape, host_need_bytes, need_bytes
from farm.errors import CannotRun
from nodes.engines.table import spec_of
from nodes.engines.wan.layout import claims
from nodes.engines.wan.spec import wan_spec

REAL = Path(__file__).parents[4] / "models" / "tiny_wan"
#: The published configs, of what the spec reads.
A14B: dict[str, Any] = {
    "_class_name": "WanTransformer3DModel",
    "num_attention_heads": 40,
    "attention_head_dim": 128,
    "in_channels": 36,
    "ffn_dim": 13824,
    "num_layers": 40,
    "patch_size": [1, 2, 2],
    "image_dim": None,
}
TI2V = {**A14B, "num_attention_heads": 24, "in_channels": 48, "ffn_dim": 14336, "num_layers": 30}
VACE = {**A14B, "_class_name": "WanVACETransformer3DModel", "num_attention_heads": 12, "in_channels": 16}
VACE |= {"ffn_dim": 8960, "num_layers": 30, "vace_in_channels": 96, "vace_layers": [0, 5]}
VAE_21 = {"_class_name": "AutoencoderKLWan", "z_dim": 16, "base_dim": 96}
VAE_22 = {
    **VAE_21,
    "z_dim": 48,
    "base_dim": 160,
    "decoder_base_dim": 256,
    "is_residual": True,
    "patch_size": 2,
}
VAE_22 |= {"scale_factor_spatial": 16, "scale_factor_temporal": 4}


def _write(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _safetensors(path: Path, tensors: dict[str, tuple[int, ...]]) -> None:
    """A file of that header whose bytes are a hole."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in tensors.items():
        count = 2
        for side in shape:
            count *= side
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + count]}
        end += count
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


@pytest.fixture
def published(tmp_path: Path) -> Callable[..., Path]:
    """A folder of the published sizes: configs, and weight files of which only headers are on the disk."""

    def written(
        transformer: dict[str, Any], vae: dict[str, Any], index: dict[str, Any], weights: int
    ) -> Path:
        folder = tmp_path / "model"
        width = transformer["num_attention_heads"] * transformer["attention_head_dim"]
        largest = (transformer["ffn_dim"], width)
        rest = weights - largest[0] * largest[1]
        tensors = {"blocks.0.ffn.weight": largest, **{f"blocks.{i}.w": (rest // 400,) for i in range(400)}}
        for name in ("transformer", *(["transformer_2"] if index.get("transformer_2") else [])):
            _write(folder / name / "config.json", transformer)
            _safetensors(folder / name / "diffusion_pytorch_model.safetensors", tensors)
        _write(folder / "vae" / "config.json", vae)
        large = vae is VAE_22
        _safetensors(
            folder / "vae" / "diffusion_pytorch_model.safetensors",
            {
                "decoder.w": (555_000_000 if large else 73_000_000,),
                "encoder.w": (150_000_000 if large else 54_000_000,),
            },
        )
        _write(folder / "text_encoder" / "config.json", {"d_model": 4096})
        _safetensors(
            folder / "text_encoder" / "model.safetensors",
            {
                "shared.weight": (256384, 4096),
                **{f"encoder.block.{i}.w": (10240, 4096) for i in range(110)},
            },
        )
        _write(
            folder / "scheduler" / "scheduler_config.json",
            {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True, "flow_shift": 3.0},
        )
        _write(folder / "tokenizer" / "tokenizer_config.json", {})
        (folder / "tokenizer" / "spiece.model").write_bytes(b"")
        _write(folder / "model_index.json", index)
        return folder

    return written


EXPERTS = {"_class_name": "WanImageToVideoPipeline", "boundary_ratio": 0.9}
EXPERTS |= {"transformer_2": ["diffusers", "WanTransformer3DModel"]}
A14B_WEIGHTS = 14_288_901_184


def _shape(width: int, height: int, num_frames: int) -> RenderShape:
    return RenderShape(num_frames=num_frames, height=height, width=width, num_inference_steps=4, guided=True)


def _needs(path: Path, shape: RenderShape, *, text: bool) -> dict[str, float]:
    """GB of each rung."""
    spec = wan_spec(path, model="m")
    return {rung.name: need_bytes(spec, rung, shape, text=text) / 1e9 for rung in spec.rungs}


def test_two_experts_are_told_by_their_configs(published: Callable[..., Path]) -> None:
    folder = published(A14B, VAE_21, EXPERTS, A14B_WEIGHTS)
    assert claims(folder)
    spec = wan_spec(folder, model="a14b")
    assert (spec.window_frames, spec.native_fps, spec.side_multiple) == (81, 16, 16)
    assert (spec.native_width, spec.native_height) == (832, 480)
    assert (spec.default_steps, spec.default_guidance_scale) == (40, 3.5)
    assert spec.takes == {"image", "last_image", "keyframes", "prefix", "text", "video"}
    assert spec.untrained == {"keyframes", "prefix"}
    assert (spec.max_prefix_latents, spec.max_end_latents) == (1, 1)
    assert not spec.frames.allows(80)
    assert spec.frames.allows(81)
    assert not spec.knows_rates
    assert (spec.draft_steps, spec.trained_sides) == (2, None), "a step for each expert, at the native size"
    # The text encoder's table of tokens stays on the host: 9.2 of 11.4 GB come to the card.
    assert spec.component_bytes["text_encoder"] == pytest.approx(9.2e9, rel=0.01)
    assert host_need_bytes(spec, spec.rungs[0], text=True) == pytest.approx(11.4e9, rel=0.01)
    assert host_need_bytes(spec, spec.rungs[0]) == pytest.approx(2 * 28.6e9, rel=0.01)


def test_streamed_experts_fit_a_card_of_six_gigabytes(published: Callable[..., Path]) -> None:
    folder = published(A14B, VAE_21, EXPERTS, A14B_WEIGHTS)
    needs, texts = (_needs(folder, _shape(832, 480, 81), text=text) for text in (False, True))
    assert needs["stream"] < 6.0
    # One expert at a time, not both.
    assert 28.6 < needs["chunk"] < 40
    # Prompts are encoded apart from the windows, whole or streamed.
    assert needs["resident"] == needs["chunk"]  # the expert is what is large
    assert texts["resident"] > 9.2
    assert texts["stream"] == texts["chunk"] < 2


def test_a_window_four_times_as_long_needs_its_tokens_and_no_more_of_the_vae(
    published: Callable[..., Path],
) -> None:
    folder = published(A14B, VAE_21, EXPERTS, A14B_WEIGHTS)
    spec = wan_spec(folder, model="m")
    stages = {stage.name: stage for stage in spec.rungs[-1].stages}
    assert stages["vae_decode"].frames_at_once == 1
    assert stages["denoise"].bytes_per_token == pytest.approx(80e3, rel=0.05)
    longer = _shape(832, 480, 81)
    shorter = _shape(832, 480, 21)
    tokens = 832 * 480 / 256 * (21 - 6)
    grown = need_bytes(spec, spec.rungs[0], longer) - need_bytes(spec, spec.rungs[0], shorter)
    a_token = stages["denoise"].reserve_ratio * stages["denoise"].bytes_per_token
    assert grown == pytest.approx(spec.reserve_ratio * tokens * a_token, rel=0.2)


#: What cards held of windows from one photo, with the driver's context: sizes that no number was fitted to.
HELD_MIB = {
    "a14b": [
        ("stream", (832, 480, 49), 4834),
        ("stream", (1280, 720, 21), 9560),
        ("chunk", (480, 832, 33), 29646),
        ("stream", (640, 368, 81), 3558),
        ("stream", (480, 480, 17), 3254),
        ("stream", (832, 480, 81), 5205),
    ],
    "ti2v": [
        ("stream", (1280, 704, 121), 5193),
        ("stream", (1280, 704, 49), 5173),
        ("chunk", (704, 1280, 33), 14589),
        ("stream", (832, 480, 121), 3791),
        ("chunk", (960, 544, 81), 13631),
        ("stream", (640, 640, 61), 3731),
        ("resident", (832, 480, 61), 14171),
    ],
}
IN_PLACE = {"_class_name": "WanPipeline", "expand_timesteps": True, "transformer_2": [None, None]}


@pytest.fixture
def of_size(published: Callable[..., Path]) -> Callable[[str], EngineSpec]:
    def read(model: str) -> EngineSpec:
        if model == "a14b":
            return wan_spec(published(A14B, VAE_21, EXPERTS, A14B_WEIGHTS), model=model)
        return wan_spec(published(TI2V, VAE_22, IN_PLACE, 4_999_787_712), model=model)

    return read


def _need(spec: EngineSpec, rung: str, window: tuple[int, int, int], *, clips: bool) -> int:
    shape = _shape(*window).model_copy(update={"encodes_clips": clips})
    return need_bytes(spec, next(each for each in spec.rungs if each.name == rung), shape)


@pytest.mark.parametrize("model", HELD_MIB)
def test_the_need_is_at_least_what_cards_held_and_at_most_an_eighth_more(
    of_size: Callable[[str], EngineSpec], model: str
) -> None:
    spec = of_size(model)
    for rung, window, held_mib in HELD_MIB[model]:
        over = _need(spec, rung, window, clips=False) / 2**20 / held_mib
        assert 1.0 <= over <= 1.12, (rung, window, over)


def test_a_card_of_six_gigabytes_holds_the_published_window_of_one_image_and_not_of_a_clip(
    of_size: Callable[[str], EngineSpec],
) -> None:
    spec = of_size("ti2v")
    assert _need(spec, "stream", (1280, 704, 121), clips=False) < 6e9
    assert _need(spec, "stream", (1280, 704, 121), clips=True) > 7e9


def test_a_model_that_reads_a_window_of_frames_encodes_one_whatever_is_given(
    of_size: Callable[[str], EngineSpec],
) -> None:
    spec, window = of_size("a14b"), (832, 480, 81)
    assert _need(spec, "stream", window, clips=False) == _need(spec, "stream", window, clips=True)


def test_a_replaced_first_latent_is_told_by_its_index(published: Callable[..., Path]) -> None:
    spec = wan_spec(published(TI2V, VAE_22, IN_PLACE, 4_999_787_712), model="ti2v")
    assert (spec.window_frames, spec.native_fps, spec.side_multiple) == (121, 24, 32)
    assert spec.takes == {"image", "prefix", "text", "text_alone", "video"}
    assert spec.untrained == {"prefix"}


def test_vace_takes_frames_anywhere(published: Callable[..., Path]) -> None:
    spec = wan_spec(published(VACE, VAE_21, {"_class_name": "WanVACEPipeline"}, 2_154_000_000), model="v")
    assert {"last_image", "keyframes", "prefix"} <= spec.takes
    assert spec.untrained == frozenset()
    assert (spec.max_prefix_latents, spec.max_end_latents) == (2, 2)
    assert (spec.knows_rates, spec.draft_steps) == (False, 4), "of one expert, which make a picture"


@pytest.mark.parametrize(
    ("transformer", "index", "message"),
    [
        ({**A14B, "in_channels": 16}, {"_class_name": "WanPipeline"}, "makes video of text alone"),
        ({**A14B, "image_dim": 1280}, {"_class_name": "WanImageToVideoPipeline"}, "through CLIP"),
        (A14B, {**EXPERTS, "boundary_ratio": None}, "no boundary_ratio"),
    ],
)
def test_a_wan_that_takes_no_image_is_refused_by_what_it_is(
    published: Callable[..., Path], transformer: dict[str, Any], index: dict[str, Any], message: str
) -> None:
    folder = published(transformer, VAE_21, index, A14B_WEIGHTS)
    with pytest.raises(CannotRun, match=message):
        spec_of(str(folder))


@pytest.mark.parametrize(
    "config",
    [
        {"_class_name": "DDIMScheduler"},
        {"_class_name": "UniPCMultistepScheduler"},
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True},
    ],
)
def test_a_scheduler_of_unknown_levels_is_refused(
    published: Callable[..., Path], config: dict[str, Any]
) -> None:
    folder = published(A14B, VAE_21, EXPERTS, A14B_WEIGHTS)
    _write(folder / "scheduler" / "scheduler_config.json", config)
    with pytest.raises(CannotRun, match="the scheduler is"):
        wan_spec(folder, model="m")


def test_a_missing_shard_of_the_second_expert_is_named(published: Callable[..., Path]) -> None:
    folder = published(A14B, VAE_21, EXPERTS, A14B_WEIGHTS)
    weights = folder / "transformer_2" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model-00001-of-00002.safetensors"))
    with pytest.raises(CannotRun, match="transformer_2/diffusion_pytorch_model-00002-of-00002"):
        wan_spec(folder, model="m")


def test_windows_off_the_vaes_stride_are_refused(published: Callable[..., Path]) -> None:
    folder = published(A14B, VAE_21, EXPERTS, A14B_WEIGHTS)
    _write(folder / "farm.json", {"windows": [80]})
    with pytest.raises(CannotRun, match="window of 81 frames"):
        wan_spec(folder, model="m")


def test_what_a_folder_was_trained_for_is_in_its_farm_json() -> None:
    spec = spec_of("tiny_wan")
    assert spec.trained_windows == (9, 17, 33)
    assert spec.window_frames == 17
    assert spec.untrained == {"video"}
    assert (spec.max_prefix_latents, spec.max_end_latents) == (2, 2)
    assert (spec.default_steps, spec.default_guidance_scale, spec.min_fps) == (4, 1.0, 0.5)
    assert spec.trained_sides == (128, 384)
    assert spec.text_components == ()  # a task for its prompts would cost more than they do
    assert "pans" in spec.vocabulary["pan"]


def test_a_model_whose_prompts_tell_the_rate_knows_slow_motion() -> None:
    spec = spec_of("tiny_wan")
    assert spec.knows_rates


def test_a_rate_is_told_in_words_the_nearest_that_was_trained() -> None:
    from nodes.engines.folders import model_facts
    from nodes.engines.wan.facts import ModelFacts, told_prompt

    facts = model_facts(REAL, ModelFacts)
    assert told_prompt(facts, "it pans", 8) == "8 frames a second: it pans"
    assert told_prompt(facts, "it pans", 0.6) == "0.5 frames a second: it pans"
    assert told_prompt(facts, "it pans", 30) == "24 frames a second: it pans"
    assert told_prompt(ModelFacts(), "it {pans}", 8) == "it {pans}"


@pytest.mark.slow
def test_the_spec_is_read_without_importing_torch_or_diffusers() -> None:
    code = (
        "import sys; from nodes.engines.table import spec_of; spec_of('tiny_wan'); "
        "heavy = {'torch', 'diffusers', 'transformers', 'ftfy'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REAL.parents[1])


def test_each_step_is_taken_by_its_expert() -> None:
    from nodes.engines.wan.steps import by_expert, schedule

    config = {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True, "flow_shift": 5.0}
    steps = schedule(config, 4)
    assert [step.timestep for step in steps] == [999, 937, 833, 625]
    assert [(name, len(share)) for name, share in by_expert(steps, ("high", "low"), 0.9)] == [
        ("high", 2),
        ("low", 2),
    ]
    assert by_expert(steps, ("one",), None) == [("one", steps)]
    distilled = schedule(config, 3, timesteps=(1000, 757, 522))
    assert [(step.sigma, step.next_sigma) for step in distilled] == [(1, 0.757), (0.757, 0.522), (0.522, 0)]
    assert [step.timestep for step in schedule(config, 2, timesteps=(1000, 757, 522))] == [999, 833]


def test_before_a_cpu_was_measured_its_time_is_known_to_a_factor_of_one_and_a_half() -> None:
    speed = json.loads((Path(__file__).parents[4] / "benchmarks/results/tiny_wan_speed.json").read_text())
    window, way = speed["window"], speed["ways"]["engine, 1 thread"]
    spec = spec_of("tiny_wan").on("cpu")
    latents = spec.frames.num_latents(window["frames"])
    tokens = latents * window["side"] ** 2 / spec.pixels_per_token
    steps = window["steps"] * (1 + spec.attention_per_token * tokens) + spec.decode_steps + spec.encode_steps
    predicted_s = spec.prior_seconds_per_mpixel_step * steps * window["frames"] * window["side"] ** 2 / 1e6
    assert 1 / 1.5 < predicted_s / way["cpu_seconds_a_window"] < 1.5


def test_half_of_a_published_step_is_attention(published: Callable[..., Path]) -> None:
    spec = wan_spec(published(A14B, VAE_21, EXPERTS, A14B_WEIGHTS), model="m")
    # As counted of the published transformer: 879 of 1680 TFLOP at 832x480x81.
    attention = spec.attention_per_token * 32_760
    assert attention / (1 + attention) == pytest.approx(879 / 1680, rel=0.1)
