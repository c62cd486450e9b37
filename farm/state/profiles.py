"""What the farm has learned of its workers: speed per model, and needs that turned out larger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from farm.capabilities import DeviceKind, Need, Rung, Worker
from farm.planning import Draft, Plan, Segment

#: Weight of the newest measurement in the running mean of a worker's speed.
NEWEST_WEIGHT = 0.3
#: The same of joining, where one measurement is a whole video.
NEWEST_JOIN_WEIGHT = 0.5
#: Joining takes time with this power of the pixels, for part of it is done in small copies. With two frames
#: for one that is shared, it is within a quarter of the CPU time measured from 128x128 to 1024x1024, in
#: windows of 8 and 16 frames that share 3 and 8.
_JOIN_POWER = 0.6
#: Seconds to join and encode a frame of a million pixels, before a video was joined here: ten frames of
#: 512x512 a second on two cores (benchmarks/joining/speed.py).
PRIOR_JOIN_S = 0.1

#: Seconds to encode a prompt on a loaded encoder, whatever the worker.
TEXT_S = 2.0

#: Bytes that a machine takes of a model in a second, of several others at once: what a cable of 1 Gbit/s lets
#: through (benchmarks/models_at_home.py).
FETCH_BYTES_PER_S = 100e6

#: Model, frame size, frames of the window, rung, kind of worker: what memory depends on.
ShapeKey = tuple[str, int, int, int, Rung, DeviceKind]


class Pace(NamedTuple):
    """What the seconds of a segment on a worker are worked out from, but for the worker itself."""

    model: str
    units: float
    prior_seconds_per_unit: float
    slowdown: Mapping[Rung, float]
    #: Of prompts, whatever the worker; None of anything else.
    text_s: float | None


@dataclass
class Profiles:
    """Learned figures; derived from events alone, so a replay learns the same."""

    #: By worker and model; units of ``Plan.timed_units``.
    seconds_per_unit: dict[tuple[str, str], float] = field(default_factory=dict)
    load_s: dict[tuple[str, str], float] = field(default_factory=dict)
    #: The same of what a device is called and a model: what its like took, for one that has not rendered yet.
    seconds_per_unit_of_device: dict[tuple[str, str], float] = field(default_factory=dict)
    load_s_of_device: dict[tuple[str, str], float] = field(default_factory=dict)
    #: Seconds to join and encode a frame of a million pixels; None before a video was made.
    join_s: float | None = None
    #: Bytes a shape is known not to fit into.
    too_small_bytes: dict[ShapeKey, int] = field(default_factory=dict)

    def learn_success(
        self,
        work: Pace,
        worker_id: str,
        rung: Rung,
        *,
        render_s: float,
        load_s: float,
        card: str = "",
    ) -> None:
        """A segment took ``render_s`` after the model was brought there in ``load_s``.

        ``card``: what it is called; one core is not like another, so of a CPU nothing is taken to be alike.
        """
        if work.text_s is not None:
            return
        key = (worker_id, work.model)
        measured = max(render_s, 1e-6) / work.units / work.slowdown[rung]
        before = self.seconds_per_unit.get(key, measured)
        self.seconds_per_unit[key] = before + NEWEST_WEIGHT * (measured - before)
        if load_s > 0:
            self.load_s[key] = load_s
        if card:
            alike = (card, work.model)
            self.seconds_per_unit_of_device[alike] = self.seconds_per_unit[key]
            if load_s > 0:
                self.load_s_of_device[alike] = load_s

    def learn_joining(self, plan: Plan, stitch_s: float) -> None:
        """A video was joined and encoded in ``stitch_s``, waiting for segments not counted."""
        frames = sum(map(frames_to_join, plan.final_segments))
        measured = stitch_s / (frames * _join_pixels(plan))
        before = measured if self.join_s is None else self.join_s
        self.join_s = before + NEWEST_JOIN_WEIGHT * (measured - before)

    def joining_s(self, plan: Plan) -> float:
        """Predicted seconds to join and encode one frame, as ``frames_to_join`` counts."""
        return _join_pixels(plan) * (PRIOR_JOIN_S if self.join_s is None else self.join_s)

    def has_measured(self, model: str, worker: Worker) -> bool:
        """Whether the speed of this model on this worker was measured."""
        return (worker.id, model) in self.seconds_per_unit

    def learn_oom(self, plan: Plan, segment: Segment, rung: Rung, kind: DeviceKind, held_bytes: int) -> None:
        """The shape did not fit into ``held_bytes``: from now on it needs more than that."""
        key = shape_key(plan, segment, rung, kind)
        self.too_small_bytes[key] = max(held_bytes, self.too_small_bytes.get(key, 0))

    def needs(self, plan: Plan, segment: Segment, kind: DeviceKind) -> dict[Rung, Need]:
        """Predicted need per rung, raised where a card of that size ran out of memory."""
        return {
            rung: need._replace(
                vram_bytes=max(
                    need.vram_bytes, self.too_small_bytes.get(shape_key(plan, segment, rung, kind), -1) + 1
                )
            )
            for rung, need in plan.footprint(segment, kind).needs.items()
        }

    def render_s(self, plan: Plan, segment: Segment, worker: Worker, rung: Rung) -> float:
        """Predicted seconds of a segment on a worker with the model loaded."""
        return self.seconds_of(pace(plan, segment, worker.kind), worker, rung)

    def seconds_of(self, work: Pace, worker: Worker, rung: Rung) -> float:
        """As ``render_s``, of many segments that are as much work as each other."""
        if work.text_s is not None:
            return work.text_s
        per_unit = self.seconds_per_unit.get((worker.id, work.model))
        if per_unit is None:
            per_unit = self.prior_s(work, worker)
        return per_unit * work.units * work.slowdown[rung]

    def prior_s(self, work: Pace, worker: Worker) -> float:
        """Seconds of a unit on a worker that has not rendered with the model: of its like, or a guess."""
        alike = (worker.device_name, work.model)
        return self.seconds_per_unit_of_device.get(alike, work.prior_seconds_per_unit)

    def bringing_s(
        self, rendered_as: Plan | Draft, worker: Worker, models: Mapping[str, int] | None
    ) -> float:
        """As ``loading_s``, and before that to take the model's files from other machines where they are not
        among the ``models`` on its disk (None: it has not told). A model by its path is where it is."""
        loading_s = self.loading_s(rendered_as, worker)
        if models is None or rendered_as.model in models or "/" in rendered_as.model:
            return loading_s
        return loading_s + rendered_as.on[worker.kind].disk_bytes / FETCH_BYTES_PER_S

    def loading_s(self, rendered_as: Plan | Draft, worker: Worker) -> float:
        """Predicted seconds to bring the model of a plan, or of its draft, onto a worker that has another."""
        model = rendered_as.loaded_as
        prior_s = self.load_s_of_device.get(
            (worker.device_name, model), rendered_as.on[worker.kind].prior_load_s
        )
        return self.load_s.get((worker.id, model), prior_s)


def pace(plan: Plan, segment: Segment, kind: DeviceKind) -> Pace:
    """Of a segment, on one kind of worker."""
    here = plan.footprint(segment, kind)
    return Pace(
        model=plan.rendered_as(segment).loaded_as,
        units=plan.timed_units(segment, kind),
        prior_seconds_per_unit=here.prior_seconds_per_mpixel_step,
        slowdown=here.slowdown,
        text_s=here.prior_load_s + TEXT_S if segment.level == "text" else None,
    )


def frames_to_join(segment: Segment) -> int:
    """Frames of a segment as the joiner's time counts them: one that it shares with the one before twice."""
    return segment.end - segment.start + segment.head


def _join_pixels(plan: Plan) -> float:
    # As much again for each frame that is interpolated beside it.
    return (
        float((plan.width * plan.height / 1e6) ** _JOIN_POWER) * plan.delivered.num_frames / plan.num_frames
    )


def shape_key(plan: Plan, segment: Segment, rung: Rung, kind: DeviceKind) -> ShapeKey:
    here = plan.rendered_as(segment)
    return (here.loaded_as, here.width, here.height, segment.num_frames, rung, kind)
