"""Prompts: what a camera does, said in English in many ways, with and without a picture described beside it.

A prompt that says nothing of a camera asks it to hold still. Words of motion may belong to the picture ("a
boat drifts slowly to the left") and then say nothing of the camera.
"""

from __future__ import annotations

import random

from models.tiny_wan.recipe.data import prompt_words as words

Template = tuple[str, str]
"""The form of the camera phrase (finite, base, ing, object or noun) and the text around it."""

TEMPLATES: tuple[Template, ...] = (
    *([("finite", "{finite}")] * 8),
    ("finite", "as {finite}"),
    ("finite", "while {finite}"),
    ("finite", "and {finite}"),
    ("finite", "then {finite}"),
    ("finite", "in this shot {finite}"),
    ("finite", "camera movement: {finite}"),
    ("ing", "{subject} is {ing}"),
    ("ing", "{subject} {ing}"),
    ("ing", "camera {ing}"),
    ("ing", "with {subject} {ing}"),
    ("ing", "{subject} starts {ing}"),
    ("ing", "{subject} keeps {ing}"),
    ("ing", "camera: {ing}"),
    ("ing", "{ing}"),
    ("base", "{base}"),
    ("base", "{base}"),
    ("base", "camera {base}"),
    ("base", "camera: {base}"),
    ("base", "we {base}"),
    ("base", "we {base}"),
    ("base", "{subject} begins to {base}"),
    ("base", "{subject} starts to {base}"),
    ("base", "{subject} should {base}"),
    ("base", "{subject} will {base}"),
    ("base", "make {subject} {base}"),
    ("base", "please {base}"),
    ("base", "({base})"),
    ("object", "{object}"),
    ("object", "please {object}"),
    ("object", "the operator should {object}"),
    ("noun", "{noun}"),
    ("noun", "{noun}"),
    ("noun", "{a noun}"),
    ("noun", "with {a noun}"),
    ("noun", "camera: {noun}"),
    ("noun", "camera motion: {noun}"),
    ("noun", "camera movement: {noun}"),
    ("noun", "{subject} does {a noun}"),
    ("noun", "{subject} makes {a noun}"),
    ("noun", "shot with {a noun}"),
    ("noun", "cinematic {noun}"),
    ("finite", "here {finite}"),
    ("finite", "next {finite}"),
    ("finite", "a video where {finite}"),
    ("finite", "watch how {finite}"),
    ("ing", "show {subject} {ing}"),
    ("ing", "seen through a lens {ing}"),
    ("ing", "made with a camera {ing}"),
    ("base", "could you make {subject} {base}"),
    ("base", "i would like {subject} to {base}"),
    ("base", "{subject} has to {base}"),
    ("base", "tell {subject} to {base}"),
    ("object", "could you {object}"),
    ("object", "would you {object}"),
    ("object", "try to {object}"),
    ("noun", "use {a noun}"),
    ("noun", "do {a noun}"),
    ("noun", "this is {a noun}"),
    ("noun", "i would like {a noun}"),
    ("noun", "filmed with {a noun}"),
    ("noun", "{a noun} is what we see"),
)
HELD_OUT_TEMPLATES: tuple[Template, ...] = (
    ("finite", "a clip in which {finite}"),
    ("finite", "we see how {finite}"),
    ("finite", "now {finite}"),
    ("ing", "{subject} can be seen {ing}"),
    ("ing", "recorded by a camera {ing}"),
    ("base", "let {subject} {base}"),
    ("base", "have the camera {base}"),
    ("base", "i want {subject} to {base}"),
    ("base", "{subject} must {base}"),
    ("object", "can you {object}"),
    ("noun", "there is {a noun}"),
    ("noun", "add {a noun}"),
    ("noun", "taken in {a noun}"),
    ("noun", "camera work: {noun}"),
)

_ARTICLES = {"a", "an", "the"}
_VOWELS = "aeiou"


def random_prompt(rng: random.Random, motion: str, pace: str, *, held_out: bool = False) -> str:
    """A prompt whose camera does ``motion`` at ``pace``.

    Args:
        rng: The only source of chance.
        motion: A key of ``camera.MOTIONS``.
        pace: A key of ``camera.PACES``; a camera that holds still has none, and ignores it.
        held_out: Use the templates and the scenery that are kept from training, and only those.
    """
    if motion == "still" and rng.random() < 0.4:
        return _written(rng, _scenery(rng, held_out))
    camera = _camera(rng, motion, pace, held_out)
    if rng.random() < 0.45:
        return _written(rng, camera)
    return _written(rng, _joined(rng, motion, camera, _scenery(rng, held_out)))


def all_words() -> list[str]:
    """Every word of scenery that training may use."""
    return sorted(
        {word for phrases in words.TRAINED.values() for phrase in phrases for word in phrase.split()}
    )


def _camera(rng: random.Random, motion: str, pace: str, held_out: bool) -> str:
    if motion == "still" and rng.random() < 0.3:
        return rng.choice(words.HELD_OUT_STILL_PHRASES if held_out else words.STILL_PHRASES)
    form, text = rng.choice(HELD_OUT_TEMPLATES if held_out else TEMPLATES)
    if not held_out and rng.random() < 0.25:
        # Words that say nothing, so that words around a camera phrase come to say nothing.
        text = _spaced(*rng.choices(words.FILLERS, k=rng.randint(1, 4)), text)
    subject = rng.choice(words.SUBJECTS)
    if form == "noun":
        noun = _noun(rng, motion, pace)
        return (
            text.replace("{subject}", subject)
            .replace("{a noun}", _with_article(noun))
            .replace("{noun}", noun)
        )
    bare = form in ("base", "ing") and "camera" not in text and "{subject}" not in text
    phrase = _verb_phrase(rng, motion, pace, form, subject if form == "finite" else "", bare)
    return text.replace("{subject}", subject).replace(f"{{{form}}}", phrase)


def _verb_phrase(rng: random.Random, motion: str, pace: str, form: str, subject: str, bare: bool) -> str:
    """``subject``, verb, direction, and the pace before, between or after them."""
    actions = words.ACTIONS[motion]
    if bare:
        actions = [action for action in actions if action[0] in words.BARE_VERBS]
        if form == "ing":
            actions = [action for action in actions if action[0] not in words.THINGS_VERBS]
    if form == "object":
        actions = [action for action in actions if action[0] in words.TRANSITIVE_VERBS]
    verb, where = rng.choice(actions)
    pace_said = ""
    if motion != "still":
        hasty = words.PACED_ACTIONS.get((motion, pace))
        if hasty and not bare and form != "object" and rng.random() < 0.15:
            verb, where = rng.choice(hasty)
            if rng.random() < 0.6:
                return _spaced(subject, _inflected(verb, form), where)
        pace_said = _pace_words(rng, pace)
    verb = _inflected(verb, form)
    is_adverb = pace_said.endswith("ly") or pace_said.endswith("and smoothly")
    place = rng.choice(
        ("first", "before", "before", "between", "after", "after") if is_adverb else ("after",)
    )
    if place == "first" and form != "finite" and not bare:
        place = "before"
    if place == "between" and not where:
        place = "after"
    if place == "first":
        return _spaced(pace_said + rng.choice((",", "")), subject, verb, where)
    if place == "before":
        return _spaced(subject, pace_said, verb, where)
    if place == "between":
        return _spaced(subject, verb, pace_said, where)
    return _spaced(subject, verb, where, pace_said)


def _pace_words(rng: random.Random, pace: str) -> str:
    if pace == "normal" and rng.random() < 0.8:
        return ""
    if rng.random() < 0.75:
        return rng.choice(words.ADVERBS[pace])
    return rng.choice(words.PACE_PHRASES).format(rng.choice(words.PACE_ADJECTIVES[pace]))


def _noun(rng: random.Random, motion: str, pace: str) -> str:
    noun = rng.choice(words.CAMERA_NOUNS[motion])
    if "camera" not in noun and rng.random() < 0.1:
        noun = f"camera {noun}"
    if motion == "still":
        return noun
    hasty = words.PACED_NOUNS.get((motion, pace))
    if hasty and rng.random() < 0.12:
        return rng.choice(hasty)
    if pace == "normal" and rng.random() < 0.8:
        return noun
    adjective = rng.choice(words.ADJECTIVES_OF_PACE[pace])
    choice = rng.random()
    if choice < 0.75:
        return f"{adjective} {noun}"
    if choice < 0.85:
        return f"{noun}, {adjective}"
    return f"{noun} {rng.choice(words.PACE_PHRASES).format(rng.choice(words.PACE_ADJECTIVES[pace]))}"


def _inflected(verb: str, form: str) -> str:
    """The third person or the participle of a verb phrase, or the phrase as it is or with its object."""
    head, _, rest = verb.partition(" ")
    if form == "base":
        return verb
    if form == "object":
        return f"{verb} the camera"
    if form == "finite":
        return _spaced(words.third_person(head), rest)
    return _spaced(words.participle(head), rest)


def _scenery(rng: random.Random, held_out: bool) -> str:
    parts = [_scene(rng, held_out) for _ in range(rng.choice((1, 1, 1, 1, 1, 2, 2, 3)))]
    if rng.random() < 0.2:
        parts.append(rng.choice(words.STYLES))
    return rng.choice((", ", ", ", ". ", " and ", "; ")).join(parts)


def _scene(rng: random.Random, held_out: bool) -> str:
    kept = words.HELD_OUT if held_out else words.TRAINED
    choice = rng.random()
    if choice < 0.12:
        return rng.choice(kept["misleading"])
    thing = _thing(rng, held_out)
    if choice < 0.24:
        verb, where = rng.choice(words.MOVES_OF_THINGS)
        adverb = rng.choice(("", "", *words.ADVERBS["slow"][:4], *words.ADVERBS["quick"][:4]))
        return _spaced(thing, _inflected(verb, rng.choice(("finite", "ing"))), adverb, where)
    if choice < 0.4:
        return thing
    if choice < 0.7:
        return _spaced(thing, rng.choice(kept["places"]), rng.choice(("", "", rng.choice(kept["lights"]))))
    if choice < 0.8:
        return _spaced(thing, rng.choice(("and", "with", "beside", "next to")), _thing(rng, held_out))
    return _spaced(thing, rng.choice(kept["doings"]), rng.choice(("", rng.choice(kept["places"]))))


def _thing(rng: random.Random, held_out: bool) -> str:
    kept = words.HELD_OUT if held_out else words.TRAINED
    noun = rng.choice(kept["nouns"]) if rng.random() < 0.9 else _unknown_word(rng)
    adjective = rng.choice(kept["adjectives"]) if rng.random() < 0.6 else ""
    named = _spaced(adjective, noun)
    choice = rng.random()
    if choice < 0.6:
        return _with_article(named)
    return f"the {named}" if choice < 0.85 else named


def _unknown_word(rng: random.Random) -> str:
    """A word of no language, so that a word never met before says nothing of the camera."""
    syllables = rng.randint(2, 3)
    return "".join(
        rng.choice("bcdfghjklmnprstvwz") + rng.choice(_VOWELS) + rng.choice(("", "", "n", "r", "s", "l", "t"))
        for _ in range(syllables)
    )


def _joined(rng: random.Random, motion: str, camera: str, scenery: str) -> str:
    choice = rng.random()
    if choice < 0.25:
        return f"{camera} {rng.choice(words.TOWARDS[motion])} {scenery}"
    comma = rng.choice((", ", ", ", ". ", "; ", " - ", "\n"))
    if camera.startswith(("as ", "while ", "and ", "with ", "then ", "(")) and rng.random() < 0.7:
        comma = " "
    return f"{scenery}{comma}{camera}" if choice < 0.65 else f"{camera}{comma}{scenery}"


def _written(rng: random.Random, text: str) -> str:
    """``text`` as people type it: capitals, stops, now and then an article left out or a letter wrong."""
    if rng.random() < 0.08:
        text = " ".join(word for word in text.split(" ") if word not in _ARTICLES) or text
    if rng.random() < 0.05:
        text = _mistyped(rng, text)
    choice = rng.random()
    if choice < 0.45:
        text = ". ".join(sentence[:1].upper() + sentence[1:] for sentence in text.split(". "))
    elif choice < 0.48:
        text = text.upper()
    return text + rng.choice(("", "", "", ".", ".", "!", " "))


def _mistyped(rng: random.Random, text: str) -> str:
    spelled = text.split(" ")
    long = [i for i, word in enumerate(spelled) if len(word) >= 5 and word.isalpha()]
    if not long:
        return text
    i = rng.choice(long)
    word = spelled[i]
    at = rng.randrange(1, len(word) - 1)
    spelled[i] = rng.choice(
        (
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        )
    )
    return " ".join(spelled)


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in _VOWELS else 'a'} {noun}"


def _spaced(*parts: str) -> str:
    return " ".join(part for part in parts if part)


#: What other recipes build their prompts from.
camera_phrase, scenery, joined, written = _camera, _scenery, _joined, _written
inflected, spaced, all_templates = _inflected, _spaced, TEMPLATES
