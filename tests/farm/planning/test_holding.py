"""What a CPU worker is said to hold includes the decoder of the video it restyles."""

from __future__ import annotations

from typing import Any

import pytest

from farm.planning.holding import decoder_bytes, held_on
from farm.planning.suggest import nearest_settings, refusal

MIB = 1 << 20


@pytest.mark.parametrize(
    ("size", "mib"), [((64, 48), 0), ((1920, 1080), 207), ((3840, 2160), 830), ((8192, 4320), 2025)]
)
def test_a_decoder_keeps_so_many_pictures_of_the_size_of_its_video(
    make: Any, size: tuple[int, int], mib: int
) -> None:
    video = make.video(40, width=size[0], height=size[1])
    assert decoder_bytes(video) // MIB == mib
    assert decoder_bytes(make.image(width=size[0], height=size[1])) == 0


def test_a_restyle_needs_it_on_a_cpu_and_not_on_a_card(make: Any) -> None:
    large, small = (
        make.plan(inputs=(make.video(40, width=w, height=h),), width=256, height=256, num_frames=40)
        for w, h in ((3840, 2160), (64, 64))
    )
    held = decoder_bytes(make.video(40, width=3840, height=2160))
    for rung, need in large.on["cpu"].need_bytes.items():
        assert need - small.on["cpu"].need_bytes[rung] == pytest.approx(held, rel=0.01)
    assert large.on["cuda"] == small.on["cuda"]


def test_settings_that_are_suggested_leave_room_for_it(make: Any) -> None:
    spec = make.spec(random_access=True)
    asked = {"inputs": (make.video(40, width=3840, height=2160),), "width": 1024, "height": 576}
    worker = make.worker("a/0", 2.4).model_copy(update={"kind": "cpu"})
    said = refusal(make.plan(spec, **asked), spec, [worker])
    assert said is not None
    near = nearest_settings(make.plan(spec, **asked), held_on(spec, "cpu", asked["inputs"][0]), worker)
    assert near
    for setting in near:
        assert f"--size {setting.width}x{setting.height} --window {setting.window_frames}" in said
        changes = setting.model_dump(exclude={"need_bytes"}, exclude_none=True)
        again = make.plan(spec, **(asked | changes))
        assert min(again.on["cpu"].need_bytes.values()) == setting.need_bytes <= worker.vram_bytes
