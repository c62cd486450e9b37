"""For every test: a guard against a Ray by accident, a tiny I2VGen-XL with the files of the real one."""

from __future__ import annotations

import functools
import gc
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

# Tests run side by side: where threads of one wait for each other on a busy core, they cost more than they
# bring. Read by the libraries when they are loaded, here and in every process that a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")

#: What waits for processes more than it works is begun first: the end is not one long tail.
WAITING = ("ray", "browser", "clients")
#: What a Python beside the usual one does without (make test-pythons), and whose tests may need it.
HEAVY = re.compile("No module named '(?:torch|diffusers|transformers|accelerate)'")
HEAVY_ROOMS = ("tests/models/", "tests/nodes/")
LEAVING_OUT = re.compile(r"not \(?(\w+(?: or \w+)*)\)?")
PYTESTMARK = re.compile(r"^pytestmark = (?:\[\n.*?^\]|[^\n]*)", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"pytest\.mark\.(\w+)")
#: Two cores have 180 CPU seconds in 90 s, and are never busy for all of them.
FAST_CPU_S = 165
JOIN_IN_PROCESS = ("tests/farm/", "tests/dashboard/", "tests/nodes/work/")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Where torch is not installed, a file that cannot be imported without it holds no tests."""
    report = yield
    lacking = report.failed and HEAVY.search(str(report.longrepr)) and not find_spec("torch")
    if lacking and collector.nodeid.startswith(HEAVY_ROOMS):
        return pytest.CollectReport(collector.nodeid, "passed", None, [])
    return report


class LeftOut(pytest.Module):
    """A file that is not imported, because all its tests are left out."""

    def collect(self) -> list[pytest.Item]:
        return []


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """With ``-m "not (slow or long)"``, files that are so as a whole, by their ``pytestmark``, are not
    imported: the libraries of what they test take seconds."""
    left_out = LEAVING_OUT.fullmatch(parent.config.option.markexpr)
    of_all = PYTESTMARK.search(module_path.read_text(encoding="utf-8"))
    if left_out and of_all and set(left_out[1].split(" or ")).intersection(MARK.findall(of_all[0])):
        return LeftOut.from_parent(parent, path=module_path)
    return None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected stays: the collector need not look through it, now or after any test.
    Tests leave little garbage, and it is looked for seldom."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "tiny_i2vgen_xl_folder" in fixtures:
            item.add_marker("torch")
        if "start_warm_farm" in fixtures:
            item.add_marker("slow")
    items.sort(key=lambda item: [not item.get_closest_marker(name) for name in WAITING])


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """With CI=true a skipped test fails the run: there, everything can run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter and reporter.stats.get("skipped") and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What a run without ``slow`` tests took of all cores: time on the clock tells of who else is at work."""
    used_s = sum(os.times()[:4])
    if "or slow" in config.option.markexpr and used_s > FAST_CPU_S:
        terminalreporter.write_line(
            f"{used_s:.0f} CPU seconds, and make test-fast is to take {FAST_CPU_S} on a quiet machine: make "
            "tests cheaper, or mark those that are slow by nature (CONTRIBUTING.md)"
        )


@pytest.fixture(autouse=True)
def no_ray_unless_marked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that starts a Ray says so with the ``ray`` mark; any other is stopped when it tries."""
    if request.node.get_closest_marker("ray"):
        return
    from nodes.ray import cluster

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("this test started a Ray; mark it with @pytest.mark.ray if it has to")

    monkeypatch.setattr(cluster, "start_driver", refuse)


@pytest.fixture(scope="module", autouse=True)
def small_contact_sheets(request: pytest.FixtureRequest) -> Iterator[None]:
    """The sheets of what is joined in this process have small tiles: a test's job would be half sheet."""
    with pytest.MonkeyPatch.context() as patch:
        if request.node.nodeid.startswith(JOIN_IN_PROCESS):
            patch.setattr("stitching.contact_sheet._TILE_WIDTH", 40)
        yield


@pytest.fixture(scope="session", autouse=True)
def commands_made_once() -> Iterator[None]:
    """A command that is run in this process is put together once: its options are made of signatures, which
    takes longer than most of what it does."""
    import typer.testing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture(autouse=True)
def advice_is_for_no_farm() -> Iterator[None]:
    """Which farm is meant by advice is a process's own: a command that ran in this one is forgotten."""
    from farm.reporting import console

    yield
    console.aim_at_farm(None)
    console.aim_at_state(None)


@dataclass(frozen=True)
class Ended:
    """A command that has ended; its descendants are in the session ``pid``, as long as they stay in it."""

    pid: int
    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def start_warm_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., WarmFarm]]:
    """``start_warm_farm("ip", "netns", "exec", name)``: a ``warm_farm`` that is started by this command."""
    with ExitStack() as stack:

        def start(*prefix: str) -> WarmFarm:
            return stack.enter_context(_warm_farm(tmp_path_factory.mktemp("warm") / "door", prefix))

        yield start


@pytest.fixture(scope="session")
def warm_farm(start_warm_farm: Callable[..., WarmFarm]) -> WarmFarm:
    """``warm_farm("plan", "photo.png", folder=..., environment=..., timeout_s=...)``: what ``python -m farm``
    does there, in a process of its own that need not import everything first, which is most of its work;
    ``ordinary``: without root's privilege to read and write everything."""
    return start_warm_farm()


WarmFarm = Callable[..., Ended]


@contextmanager
def _warm_farm(door: Path, prefix: tuple[str, ...]) -> Iterator[WarmFarm]:
    # -P: the folder of the tests is not searched, whose rooms are called like those of the house.
    command = [*prefix, sys.executable, "-P", str(Path(__file__).with_name("warm.py")), str(door)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"

        def run(
            *arguments: str | bytes,
            folder: Path,
            environment: dict[str, str],
            timeout_s: float,
            ordinary: bool = False,
        ) -> Ended:
            asked = [[os.fsdecode(a) for a in arguments], str(folder), environment, ordinary]
            with (
                tempfile.TemporaryFile() as out,
                tempfile.TemporaryFile() as err,
                socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection,
            ):
                connection.connect(str(door))
                socket.send_fds(connection, [json.dumps(asked).encode()], [out.fileno(), err.fileno()])
                pid = int(connection.recv(100))
                connection.settimeout(timeout_s)
                try:
                    status = int(connection.recv(100))
                except TimeoutError:
                    os.killpg(pid, signal.SIGKILL)
                    raise AssertionError(f"farm {arguments} took more than {timeout_s:.0f} s") from None
                said = [(file.seek(0), file.read().decode())[1] for file in (out, err)]
                return Ended(pid, status, *said)

        yield run
        server.stdin.close()


TINY_UNET = {
    "sample_size": 16,
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
}
TINY_VAE = {
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "latent_channels": 4,
}
TINY_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
}
TINY_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "projection_dim": 32,
}
SCHEDULER = {
    "beta_schedule": "squaredcos_cap_v2",
    "rescale_betas_zero_snr": True,
    "prediction_type": "v_prediction",
    "timestep_spacing": "leading",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 1,
}


def write_tokenizer(folder: Path) -> int:
    """A CLIP tokenizer that spells every byte, in the files of the hub repository; returns its size."""
    visible = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256))]
    symbols = visible + [chr(256 + i) for i in range(256 - len(visible))]
    tokens = [*symbols, *(s + "</w>" for s in symbols), "th", "the</w>", "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e</w>\n", encoding="utf-8")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    special["pad_token"] = "<|endoftext|>"
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    settings = {**special, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(tokens)


def _name_as_on_the_hub(path: Path) -> None:
    """Text encoder weights of the hub were saved under ``text_model.``, before transformers 5.6."""
    from safetensors.torch import load_file, save_file

    weights = load_file(path)
    named = {f"text_model.{key.removeprefix('text_model.')}": w for key, w in weights.items()}
    save_file(named, path, {"format": "pt"})


def write_tiny_i2vgen_xl(folder: Path) -> None:
    """Write the whole model folder: seeded random weights, as plain and as fp16 safetensors files."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, I2VGenXLUNet
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    vocabulary = write_tokenizer(folder / "tokenizer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        models = {
            "unet": I2VGenXLUNet(**TINY_UNET),
            "vae": AutoencoderKL(**TINY_VAE),
            "text_encoder": CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=vocabulary,
                    bos_token_id=vocabulary - 2,
                    eos_token_id=vocabulary - 1,
                    pad_token_id=vocabulary - 1,
                    **TINY_TEXT,
                )
            ),
            "image_encoder": CLIPVisionModelWithProjection(CLIPVisionConfig(**TINY_VISION)),
        }
        for name, parameter in models["unet"].named_parameters():
            if ".conv4." in name:  # written as zeros: the temporal convolutions would do nothing
                torch.nn.init.normal_(parameter, std=0.05)
    for name, model in models.items():
        model.half().save_pretrained(folder / name, variant="fp16")
        model.float().save_pretrained(folder / name)
    for path in (folder / "text_encoder").glob("*.safetensors"):
        _name_as_on_the_hub(path)
    DDIMScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    processor = {
        "crop_size": {"height": 32, "width": 32},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "CLIPImageProcessor",
    }
    (folder / "feature_extractor").mkdir()
    (folder / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(processor))
    index = {
        "_class_name": "I2VGenXLPipeline",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "I2VGenXLUNet"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.fixture(scope="session")
def tiny_i2vgen_xl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete model folder of about 0.3 M parameters; UNet and VAE of two and three levels."""
    folder = tmp_path_factory.mktemp("models") / "tiny-i2vgen-xl"
    folder.mkdir()
    write_tiny_i2vgen_xl(folder)
    return folder
