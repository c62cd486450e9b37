"""A new model family is one sub-package and one line of the table: nothing else knows of it."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from farm.capabilities.worker import GIB, Worker
from farm.errors import InvalidInput, NotFound
from farm.planning.render_task import RenderTask
from farm.running.cluster import Blob, Failed, Finished, Order
from nodes.engines import table
from nodes.engines.family import Family
from nodes.work.local_cluster import LocalCluster
from stitching.video_io import read_frames

WORKER = Worker(id="a/0", node="a", kind="cpu", device_name="a CPU", vram_bytes=GIB)

#: The sub-package: its claim, its spec, its engine and its line.
PAINT = '''
"""Walls of one tint, brighter to the right. Paint enters, and nothing that runs on torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from farm.capabilities import EngineSpec, RungSpec, StageCost
from nodes.engines import Rendered
from nodes.engines.family import Family
from nodes.engines.folders import config_of

__all__ = ["FAMILY"]


def read_spec(folder, model, revision, weights):
    return EngineSpec(
        model=model,
        engine="paint",
        takes=frozenset({"image"}),
        native_width=64,
        native_height=48,
        component_bytes={},
        context_bytes=0,
        rungs=(RungSpec(name="resident", stages=(StageCost(name="paint"),)),),
        prior_seconds_per_mpixel_step=1.0,
    )


class Paint:
    def __init__(self, spec, tint):
        self.spec, self.tint = spec, tint

    def load(self, rung):
        pass

    def unload(self):
        pass

    def render(self, task, inputs, report):
        report("denoise", 0, 1)
        row = np.linspace(0, 1, task.width)[:, None] * self.tint
        shape = (task.num_frames, task.height, task.width, 3)
        return Rendered(np.broadcast_to(row, shape).astype(np.uint8))


def create(spec, folder, worker, *, cpu_threads, attention):
    return Paint(spec, config_of(folder, "paint.json")["tint"])


FAMILY = Family(
    name="paint",
    takes=frozenset({"image"}),
    read_spec=read_spec,
    create=create,
    claims=lambda path: "tint" in config_of(path, "paint.json"),
    models={"paint-red": Path(__file__).parent},
    uses_torch=False,
)
'''


@pytest.fixture
def paint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Family:
    """The family's line, which the table does not hold yet."""
    package = tmp_path / "packages" / "made_up_paint"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(PAINT)
    (package / "paint.json").write_text('{"tint": [200, 40, 40]}')
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, package.name, raising=False)
    family = importlib.import_module(package.name).FAMILY
    assert isinstance(family, Family)
    return family


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of that family by its path."""
    made = tmp_path / "blue"
    made.mkdir()
    (made / "paint.json").write_text(json.dumps({"tint": [40, 40, 200]}))
    return made


@pytest.fixture(autouse=True)
def forgotten_specs() -> None:
    table._spec_of.cache_clear()


def with_line(monkeypatch: pytest.MonkeyPatch, *families: Family) -> None:
    monkeypatch.setattr(table, "FAMILIES", (*table.FAMILIES, *families))


async def rendered(model: str, tmp_path: Path) -> np.ndarray:
    """A window of the model by a whole worker, from an order to the encoded frames (F, H, W, 3)."""
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), np.full((48, 64, 3), 90, np.uint8))
    order = Order(
        attempt_id="job/s0-0/1",
        worker_id=WORKER.id,
        task=RenderTask(
            model=model,
            frame_indices=tuple(range(3)),
            shot_start=0,
            shot_end=3,
            height=48,
            width=64,
            fps=8,
            num_inference_steps=1,
            guidance_scale=1.0,
            seed=0,
        ),
        rung="resident",
        need_bytes=0,
        inputs={"image": Blob(sha256=hashlib.sha256(photo.read_bytes()).hexdigest(), path=photo)},
    )
    cluster = LocalCluster([WORKER])
    try:
        cluster.start(order)
        async with asyncio.timeout(60):
            async for message in cluster.messages():
                if isinstance(message, Finished | Failed):
                    break
    finally:
        await cluster.close()
    assert isinstance(message, Finished), message
    path = tmp_path / "segment.mkv"
    path.write_bytes(message.content)
    return read_frames(path)


async def test_a_family_of_one_sub_package_renders_by_name_and_by_folder_after_one_line_of_the_table(
    paint: Family, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput, match=r"no readable model_index\.json"):
        table.spec_of(str(folder))
    with_line(monkeypatch, paint)
    red = await rendered("paint-red", tmp_path)
    blue = await rendered(str(folder), tmp_path)
    assert red.shape == blue.shape == (3, 48, 64, 3)
    assert red[0, 0, -1].tolist() == [200, 40, 40]
    assert blue[0, 0, -1].tolist() == [40, 40, 200]


def test_the_command_and_the_api_list_what_its_line_says(
    paint: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_line(monkeypatch, paint)
    assert table.model_names()[-1] == "paint-red"
    listed = {"model": "paint-red", "engine": "paint", "takes": ["image"], "source": "built in"}
    assert table.known_models()[-1].items() >= listed.items()
    assert table.named_spec_of("paint-red").engine == "paint"
    with_line(monkeypatch, replace(paint, models={"hidden": Path()}, listed=False))
    assert "hidden" not in table.model_names()
    with pytest.raises(NotFound):
        table.named_spec_of("hidden")


def test_a_folder_that_two_families_claim_is_refused_by_both_names(
    paint: Family, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_line(monkeypatch, paint, replace(paint, name="lacquer", models={}))
    with pytest.raises(InvalidInput, match=r"blue is claimed by paint and lacquer: ") as refused:
        table.spec_of(str(folder))
    assert "\n" not in refused.value.message


def test_a_single_file_is_a_model_when_a_family_claims_it(
    paint: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "wall.paint"
    checkpoint.write_bytes(b"")
    with pytest.raises(NotFound, match="and no folder"):
        table.spec_of(str(checkpoint))
    with_line(monkeypatch, replace(paint, claims=lambda path: path.suffix == ".paint"))
    assert table.spec_of(str(checkpoint)).engine == "paint"
