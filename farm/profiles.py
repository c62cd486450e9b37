"""What the farm has learned of its workers: speed per model, and needs that turned out larger."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from farm.capabilities import Worker
from farm.engine_spec import DeviceKind, Rung
from farm.plan import Plan, Segment

if TYPE_CHECKING:
    from farm.state import Attempt

#: Weight of the newest measurement in the running mean of a worker's speed.
NEWEST_WEIGHT = 0.3

#: Model, frame size, frames of the window, rung, kind of worker: what memory depends on.
ShapeKey = tuple[str, int, int, int, Rung, DeviceKind]


@dataclass
class Profiles:
    """Learned figures; derived from events alone, so a replay learns the same."""

    seconds_per_unit: dict[tuple[str, str], float] = field(default_factory=dict)
    load_s: dict[tuple[str, str], float] = field(default_factory=dict)
    #: Bytes a shape is known not to fit into.
    too_small_bytes: dict[ShapeKey, int] = field(default_factory=dict)

    def learn_success(
        self,
        plan: Plan,
        segment: Segment,
        attempt: Attempt,
        kind: DeviceKind,
        *,
        render_s: float,
        load_s: float,
    ) -> None:
        """A segment took ``render_s`` after the model was brought there in ``load_s``."""
        key = (attempt.worker_id, plan.model)
        slowdown = plan.on[kind].slowdown[attempt.rung]
        measured = max(render_s, 1e-6) / plan.work_units(segment) / slowdown
        before = self.seconds_per_unit.get(key, measured)
        self.seconds_per_unit[key] = before + NEWEST_WEIGHT * (measured - before)
        if load_s > 0:
            self.load_s[key] = load_s

    def learn_oom(self, plan: Plan, segment: Segment, rung: Rung, kind: DeviceKind, held_bytes: int) -> None:
        """The shape did not fit into ``held_bytes``: from now on it needs more than that."""
        key = shape_key(plan, segment, rung, kind)
        self.too_small_bytes[key] = max(held_bytes, self.too_small_bytes.get(key, 0))

    def needs(self, plan: Plan, segment: Segment, kind: DeviceKind) -> dict[Rung, int]:
        """Predicted need per rung, raised where a card of that size ran out of memory."""
        return {
            rung: max(need, self.too_small_bytes.get(shape_key(plan, segment, rung, kind), -1) + 1)
            for rung, need in plan.on[kind].need_bytes.items()
        }

    def render_s(self, plan: Plan, segment: Segment, worker: Worker, rung: Rung) -> float:
        """Predicted seconds of a segment on a worker with the model loaded."""
        here = plan.on[worker.kind]
        per_unit = self.seconds_per_unit.get((worker.id, plan.model), here.prior_seconds_per_mpixel_step)
        return per_unit * plan.work_units(segment) * here.slowdown[rung]

    def loading_s(self, plan: Plan, worker: Worker) -> float:
        """Predicted seconds to bring the plan's model onto a worker that has another, or none."""
        return self.load_s.get((worker.id, plan.model), plan.on[worker.kind].prior_load_s)


def shape_key(plan: Plan, segment: Segment, rung: Rung, kind: DeviceKind) -> ShapeKey:
    return (plan.model, plan.width, plan.height, segment.num_frames, rung, kind)
