"""What a clip can be asked to show: camera motions and their combinations, depth, and things that move.

Speeds of the camera are those of ``models.tiny_wan.recipe.data.camera``; things have one speed each.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from models.tiny_wan.recipe.data.camera import MOTIONS, PACES, Motion, Pace
from models.tiny_wan.recipe.data.prompt_words import participle, third_person

#: Motions that exclude one another, by axis; a combination takes one each of two axes.
AXES: dict[str, tuple[str, str]] = {
    "across": ("left", "right"),
    "along": ("up", "down"),
    "zoom": ("in", "out"),
    "roll": ("clockwise", "counterclockwise"),
}
THINGS = (
    "none",
    "snow",
    "drift left",
    "drift right",
    "slide left",
    "slide right",
    "turn clockwise",
    "turn counterclockwise",
)
"""What moves besides the camera: falling snow; a sky or water that drifts; the object in the middle."""
SNOW_PX_PER_S, DRIFT_PX_PER_S, SLIDE_PX_PER_S, TURN_RAD_PER_S = 40.0, 12.0, 16.0, 0.5
#: With parallax the near layer moves this much of the asked speed, and the far one that much.
NEAR, FAR = 1.5, 0.6
#: Frames a second that prompts tell; others are told as the nearest of these (in ratio).
RATES = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 16.0, 20.0, 24.0)
#: How the rate stands in the prompt; first, so that a long prompt cannot push it out.
RATE_TEMPLATE = "{fps:g} frames a second: {prompt}"


@dataclass(frozen=True)
class Asked:
    """One or two motions of the camera at one pace, whether near things move more, and what else moves."""

    camera: tuple[str, ...]
    pace: Pace = "normal"
    parallax: bool = False
    thing: str = "none"

    @property
    def motion(self) -> Motion:
        """The camera's motion, all its parts together."""
        parts = [MOTIONS[name].at(self.pace) for name in self.camera]
        return Motion(
            sum(p.right for p in parts),
            sum(p.down for p in parts),
            sum(p.zoom for p in parts),
            sum(p.roll for p in parts),
        )

    @property
    def moves(self) -> bool:
        return self.camera != ("still",)


def thing_motion(thing: str) -> Motion:
    """The motion of the camera that would make the thing's own layer move so."""
    what, _, way = thing.partition(" ")
    sign = -1.0 if way in ("right", "clockwise") else 1.0
    if what == "drift":
        return Motion(right=sign * DRIFT_PX_PER_S)
    if what == "slide":
        return Motion(right=sign * SLIDE_PX_PER_S)
    if what == "turn":
        return Motion(roll=sign * TURN_RAD_PER_S)
    return Motion(down=-SNOW_PX_PER_S) if what == "snow" else Motion()


def _pairs() -> list[tuple[str, str]]:
    pairs = []
    for first, second in itertools.combinations(AXES.values(), 2):
        pairs += list(itertools.product(first, second))
    return pairs


SINGLES = [Asked((name,), pace) for name in MOTIONS for pace in PACES if name != "still" or pace == "normal"]
COMBINED = [Asked(pair, pace) for pair in _pairs() for pace in PACES]
LAYERED = [
    Asked((name,), pace, parallax=True)
    for name in ("left", "right", "up", "down", "in", "out")
    for pace in PACES
]
SNOWING = [Asked(one.camera, one.pace, thing="snow") for one in SINGLES]
MOVING = [Asked(("still",), thing=thing) for thing in THINGS if thing not in ("none", "snow")]
#: By the kind of scene it takes to film them, with the share of each kind in training.
KINDS: dict[str, tuple[list[Asked], float]] = {
    "plain": (SINGLES, 0.56),
    "combined": (COMBINED, 0.16),
    "parallax": (LAYERED, 0.10),
    "snow": (SNOWING, 0.06),
    "thing": (MOVING, 0.12),
}


def told_rate(fps: float) -> float:
    """The rate of ``RATES`` nearest to ``fps``, in ratio."""
    return min(RATES, key=lambda rate: max(rate / fps, fps / rate))


def with_rate(prompt: str, fps: float) -> str:
    """What the text encoder reads: the prompt with its rate told."""
    return RATE_TEMPLATE.format(fps=told_rate(fps), prompt=prompt)


def _words(text: str) -> list[str]:
    return text.split()


def _verbs(text: str) -> list[str]:
    """Each verb in the forms that prompts have."""
    return [form for verb in _words(text) for form in (verb, third_person(verb), participle(verb))]


def _directions(text: str) -> list[str]:
    return [form for way in _words(text) for form in (way, f"{way}ward", f"{way}wards")]


#: ``vocabulary`` of its farm.json: what people are told it knows, and words of its prompts that ask for it.
#: Not every wording of training is here, and a word may stand for something else: it refuses nothing.
VOCABULARY: dict[str, list[str]] = {
    "pan": [*_verbs("pan track sweep truck"), *_directions("left right"), "sideways", "horizontal"],
    "tilt": [
        *_verbs("tilt crane boom pedestal rise ascend climb lift descend sink lower drop"),
        *_directions("up down"),
        *("vertical", "descent", "come down", "comes down", "coming down"),
    ],
    "zoom": [
        *_verbs("zoom push pull dolly approach retreat recede withdraw widen creep inch"),
        *_directions("for back in out"),
        *_words("closer nearer back away out off towards pullback farther further"),
    ],
    "roll": [
        *_verbs("roll rotate turn spin twist revolve"),
        *_words("rotation clockwise counterclockwise anticlockwise counter anti"),
    ],
    "hold still": [
        *_verbs("hold stay keep remain rest stand"),
        *_words("still steady static stationary motionless fixed locked unmoving tripod same"),
        *("not move", "doesn't move", "don't move", "never moves", "no movement", "no motion"),
        *("without movement", "without moving", "not moving", "nothing moves", "never moving"),
    ],
    "move": [
        *_verbs("move go travel glide slide drift float fly shift walk look swing scroll come"),
        "movement",
    ],
    "slowly and quickly": [
        *_words("slow slowly gently gentle gradually gradual softly soft leisurely calmly calm lazily"),
        *_words("slightly subtly subtle unhurriedly steadily smoothly smooth evenly normally normal quick"),
        *_words("quickly rapidly rapid swiftly swift fast briskly brisk speedily hurriedly hastily speed"),
        *_words("pace crash"),
        *_verbs("whip race rush dart dash ease crawl snap"),
    ],
    "parallax": _words("parallax layers near nearby far distant foreground background depth"),
    "falling snow": [*_words("snow snows snowing snowfall snowflakes snowstorm flakes"), *_verbs("fall")],
    "drifting clouds or water": [*_words("clouds sky water river fog mist"), *_verbs("flow pass")],
    "the object in the middle sliding or turning": _words("object thing middle centre center central"),
}
