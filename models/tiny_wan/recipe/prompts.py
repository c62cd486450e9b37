"""Prompts of tiny_wan: the camera's by data/grammar.py, combinations, depth and moving things."""

from __future__ import annotations

import random
import re

from models.tiny_wan.recipe.asked import Asked
from models.tiny_wan.recipe.data import prompt_words as words
from models.tiny_wan.recipe.data.grammar import camera_phrase, inflected, joined, scenery, spaced, written

#: So many prompts in training have a second scene beside the first.
LONG_SHARE = 0.2
#: Two motions at once.
_TOGETHER = (
    *("while", "while", "while", "and", "and", "while also", "and at the same time", "as well as", "plus"),
    *("and also", "combined with", "along with", "simultaneously", ", and simultaneously", "then also"),
    *("in combination with", "with", "at the same time as", "& also", "whilst", "as it is"),
    *("alongside", "and, meanwhile,", ", all while", "and, as it does,", "while at once", "paired with"),
)
_HELD_OUT_TOGETHER = ("together with", "and, all the while,")
_PARALLAX = (
    "with parallax",
    "with strong parallax",
    "with depth and parallax",
    "parallax",
    "near things move more than far ones",
    "the foreground moves faster than the background",
    "the foreground moves more",
    "in layers, near and far",
    *(
        "with a sense of parallax",
        "parallax between the layers",
        "close things move faster than distant ones",
    ),
    *("things nearby move more than things far away", "what is close shifts faster than what is distant"),
    "the background moves less than the foreground",
)
_HELD_OUT_PARALLAX = ("with a parallax effect", "what is near moves more than what is far")
_SNOW = (
    *("snow is falling", "snow falls", "it is snowing", "it snows", "falling snow", "snowflakes fall"),
    *("light snowfall", "with snow falling", "snow falling gently", "snowflakes are falling", "snowing"),
    *("snow comes down", "snow drifts down", "heavy snow falls", "snow is coming down", "flakes come down"),
    *("snowflakes drop down", "snow falls down from the sky", "snowflakes fall from above", "a snowstorm"),
    *("snow sinks to the ground", "flakes of snow float down", "snow going down", "with a light snowfall"),
    *(
        "a heavy snowfall",
        "a soft snowfall",
        "snow begins to fall",
        "snow goes on falling",
        "flakes are falling",
    ),
    *("snowflakes are sinking down", "snowflakes come floating down", "snowfall", "there is snow falling"),
)
_HELD_OUT_SNOW = ("snowflakes are coming down", "a snowfall", "snow keeps falling")
_DRIFTING = ("clouds", "the clouds", "clouds", "the sky", "water", "the water", "the river", "fog", "mist")
_DRIFT_VERBS = ("drift", "move", "flow", "pass", "float", "drift slowly")
_OBJECTS = (
    *("the object in the middle", "the object in the middle", "the object", "the thing in the middle"),
    *("the object in the centre", "the object in the center", "the central object", "the middle object"),
    *("the thing at the centre", "the object in the middle of the picture", "what is in the middle"),
)
_HELD_OUT_OBJECTS = ("the thing in the centre", "the object at the middle")
_SLIDES, _TURNS = ("slide", "move", "slide", "glide"), ("turn", "rotate", "spin", "turn")
_COUNTER = ("counterclockwise", "anticlockwise", "counter-clockwise", "anti-clockwise")
#: Scenery that would ask for a thing's motion.
_ASKS_FOR_A_THING = re.compile(
    r"snow\w*\b.* fall|fall\w* snow|snowfall|snowing|parallax|layers|foreground|object|thing in"
    r"|\b(cloud|sky|water|river|fog|mist|snow|wave|ocean|lake|sea)\w*\b.*"
    r"\b(drift|mov|flow|pass|float|slid|fall|ris|fly|flies|run|sink|go|climb|com|swim|roll|drop)",
    re.IGNORECASE,
)


def random_prompt(rng: random.Random, asked: Asked, *, held_out: bool = False) -> str:
    """A prompt that asks for this and nothing else, as people type it.

    ``held_out``: in templates and scenery that are kept from training, and only those.
    """
    camera = _camera(rng, asked, held_out)
    if asked.parallax:
        depth = rng.choice(_HELD_OUT_PARALLAX if held_out else _PARALLAX)
        camera = rng.choice((f"{camera} {depth}", f"{camera}, {depth}", f"{depth}, {camera}"))
    thing = _thing(rng, asked.thing, held_out)
    if thing and camera:
        parts = (thing, camera) if rng.random() < 0.5 else (camera, thing)
        camera = rng.choice((", ", ". ", " and ", "; ", " while ")).join(parts)
    elif thing:
        camera = thing
    lonely = not camera
    if lonely or rng.random() > 0.45:
        scene = _harmless_scenery(rng, held_out)
        camera = scene if lonely else joined(rng, asked.camera[0], camera, scene)
        if not held_out and rng.random() < LONG_SHARE:
            parts = [camera, _harmless_scenery(rng, held_out)]
            rng.shuffle(parts)
            camera = rng.choice((", ", ". ", "; ", "\n")).join(parts)
    return written(rng, camera)


def _camera(rng: random.Random, asked: Asked, held_out: bool) -> str:
    """The camera's part; nothing, often, where it holds still."""
    if not asked.moves and rng.random() < (0.4 if asked.thing == "none" else 0.7):
        return ""
    first, *others = rng.sample(asked.camera, len(asked.camera))
    phrase = camera_phrase(rng, first, asked.pace, held_out)
    for other in others:
        actions = [action for action in words.ACTIONS[other] if action[0] in words.BARE_VERBS]
        verb, where = rng.choice(actions)
        also = rng.choice(_HELD_OUT_TOGETHER if held_out else _TOGETHER)
        phrase = spaced(phrase, also, inflected(verb, "ing"), where)
    return phrase


def _thing(rng: random.Random, thing: str, held_out: bool) -> str:
    what, _, way = thing.partition(" ")
    if what == "none":
        return ""
    if what == "snow":
        return rng.choice(_HELD_OUT_SNOW if held_out else _SNOW)
    if what == "turn":
        way = (
            rng.choice(_COUNTER) if way == "counterclockwise" else rng.choice(("clockwise", "clockwise", ""))
        )
    else:
        way = rng.choice((way, f"to the {way}", f"{way}wards", f"towards the {way}"))
    verb = rng.choice({"drift": _DRIFT_VERBS, "slide": _SLIDES, "turn": _TURNS}[what])
    if what == "drift":
        subject = rng.choice(_DRIFTING)
        plural = subject.endswith("clouds")
    else:
        subject, plural = rng.choice(_HELD_OUT_OBJECTS if held_out else _OBJECTS), False
    if rng.random() < 0.4:
        return spaced(subject, "are" if plural else "is", inflected(verb, "ing"), way)
    return spaced(subject, verb if plural else inflected(verb, "finite"), way)


def _harmless_scenery(rng: random.Random, held_out: bool) -> str:
    """Scenery, drawn again until it asks for nothing that this model would do."""
    while True:
        scene = scenery(rng, held_out)
        if not _ASKS_FOR_A_THING.search(scene):
            return scene
