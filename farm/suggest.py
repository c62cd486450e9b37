"""The settings nearest to what was asked that some worker can hold."""

from __future__ import annotations

from collections.abc import Iterable
from math import log

from farm.capabilities import Worker, fitting_rungs, gib, why_not
from farm.engine_spec import EngineSpec, RenderShape, need_bytes
from farm.plan import Plan
from farm.values import Value

NUM_SUGGESTIONS = 3
#: Sizes tried, relative to the asked one.
_SCALES = tuple(i / 16 for i in range(16, 1, -1))


class Setting(Value):
    width: int
    height: int
    window_frames: int
    #: Only where the plan's does not go with this window.
    overlap_frames: int | None = None
    need_bytes: int

    def __str__(self) -> str:
        overlap = "" if self.overlap_frames is None else f" --overlap {self.overlap_frames}"
        return (
            f"--size {self.width}x{self.height} --window {self.window_frames}{overlap} "
            f"({gib(self.need_bytes)})"
        )


def refusal(plan: Plan, spec: EngineSpec, workers: Iterable[Worker]) -> str | None:
    """Why no worker can hold a window of this plan, with what would fit; None when one can."""
    workers = list(workers)
    if not workers or any(fitting_rungs(plan.on[w.kind].need_bytes, w) for w in workers):
        return None
    largest = max(workers, key=lambda w: w.vram_bytes)
    near = nearest_settings(plan, spec.on(largest.kind), largest)
    hint = "; these fit: " + ", ".join(map(str, near)) if near else "; nothing smaller fits either"
    return (
        f"no worker can hold {plan.width}x{plan.height} in windows of {plan.window_frames} frames: "
        f"{why_not(plan.on[largest.kind].need_bytes, largest)}{hint}"
    )


def nearest_settings(plan: Plan, spec: EngineSpec, worker: Worker) -> list[Setting]:
    """Up to three settings that fit, the nearest in pixels and window length first."""
    multiple = spec.side_multiple * (1 + spec.side_multiple % 2)
    sizes = {
        (
            max(multiple, round(plan.width * scale / multiple) * multiple),
            max(multiple, round(plan.height * scale / multiple) * multiple),
        )
        for scale in _SCALES
    }
    # A chain needs a frame to hand over besides the one it starts from.
    smallest = max(spec.min_window_frames, 2 if plan.mode == "chain" else 1)
    windows = [n for n in range(smallest, plan.window_frames + 1) if spec.allows_num_frames(n)]
    fitting = []
    for width, height in sizes:
        for window in windows:
            need = _smallest_need(plan, spec, width, height, window)
            if need <= worker.vram_bytes:
                pixels = log(plan.width * plan.height / (width * height))
                frames = log(plan.window_frames / window)
                fitting.append((abs(pixels) + frames, -width, -window, width, height, need))
    return [
        Setting(
            width=width,
            height=height,
            window_frames=-window,
            overlap_frames=-window // 2 if plan.overlap_frames > -window // 2 else None,
            need_bytes=need,
        )
        for _, _, window, width, height, need in sorted(fitting)[:NUM_SUGGESTIONS]
    ]


def _smallest_need(plan: Plan, spec: EngineSpec, width: int, height: int, window: int) -> int:
    shape = RenderShape(
        num_frames=window,
        height=height,
        width=width,
        num_inference_steps=plan.num_inference_steps,
        guided=plan.guidance_scale > 1.0,
    )
    return min(need_bytes(spec, rung, shape) for rung in spec.rungs)
