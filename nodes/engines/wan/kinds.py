"""What each kind of Wan can be given, and what its weights were trained for."""

from __future__ import annotations

from farm.capabilities import Conditioning
from nodes.engines.wan.facts import InPlaceFacts, KnownFrames, ModelFacts, VaceFacts
from nodes.engines.wan.layout import Kind

FACTS: dict[Kind, type[ModelFacts]] = {"channels": ModelFacts, "in_place": InPlaceFacts, "vace": VaceFacts}

#: What a kind can be given at all: one whose first latents are replaced knows no frame within a latent.
TAKES: dict[Kind, frozenset[Conditioning]] = {
    "channels": frozenset({"image", "last_image", "keyframes", "prefix", "text", "video"}),
    "in_place": frozenset({"image", "prefix", "text", "text_alone", "video"}),
    "vace": frozenset(
        {"image", "last_image", "keyframes", "prefix", "text", "text_alone", "video", "mask", "references"}
    ),
}
_TRAINED_BY: dict[Conditioning, KnownFrames] = {
    "image": "first",
    "last_image": "first_and_last",
    "keyframes": "middle",
    "prefix": "first_k",
}


def untrained(kind: Kind, facts: ModelFacts) -> frozenset[Conditioning]:
    """Of what the kind can be given, what these weights were not trained for."""
    frames = {taken for taken, known in _TRAINED_BY.items() if known not in facts.known_frames}
    return TAKES[kind] & {*frames, *facts.untrained}


def max_prefix_latents(facts: ModelFacts) -> int:
    """Latents taken over from the window before: a trained prefix is nine frames, an untrained one five."""
    return 2 if "first_k" in facts.known_frames else 1


def max_end_latents(facts: ModelFacts) -> int:
    """Latents of a clip at either end: where clips were trained on, a frame and the four before or behind."""
    return 2 if "both_ends_k" in facts.known_frames else 1
