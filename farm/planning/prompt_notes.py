"""Which words of a prompt mean anything to a model that knows few, or reads none. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from farm.capabilities import EngineSpec

#: Words that ask for nothing, whatever the model; and those of any prompt for a video.
_SAY_NOTHING = {
    *("a", "an", "and", "as", "at", "by", "for", "from", "in", "into", "is", "it", "its", "of", "on", "our"),
    *("over", "the", "then", "this", "to", "we", "while", "with", "please"),
    *("camera", "frame", "image", "lens", "photo", "picture", "scene", "shot", "video", "view"),
}
#: A prompt is named by so many characters of it.
_SHOWN_CHARACTERS = 60


def prompt_notes(prompts: Sequence[str], spec: EngineSpec, *, negative_prompt: str = "") -> tuple[str, ...]:
    """What the model does not read of the prompts; nothing of one that reads any and has no vocabulary."""
    if "text" not in spec.takes:
        is_written = any(text.strip() for text in (*prompts, negative_prompt))
        return (f"{spec.model} does not read prompts: what is written is not used",) if is_written else ()
    texts = (*prompts, negative_prompt)
    unsaid = [word for word in spec.taught_words if not any(word in text for text in texts)]
    if unsaid:
        taught = f"what {spec.model} was taught of it by a textual inversion"
        return (f"no prompt says {' or '.join(unsaid)}: {taught} is not used",)
    if not spec.vocabulary:
        return ()
    return tuple(note for prompt in dict.fromkeys(prompts) if (note := _note(prompt, spec)))


def _note(prompt: str, spec: EngineSpec) -> str | None:
    known = f"{spec.model} knows {', '.join(spec.vocabulary)}"
    if not prompt.strip():
        return f"there is no prompt: {known}"
    shown = prompt if len(prompt) <= _SHOWN_CHARACTERS else f"{prompt[: _SHOWN_CHARACTERS - 1]}…"
    read, all_read = words_read(prompt, spec)
    if not read:
        return f'nothing in "{shown}" means anything to {spec.model}: {known}'
    if all_read:
        return None
    return f'of "{shown}" {spec.model} reads: {", ".join(read)}; {known}'


def words_read(prompt: str, spec: EngineSpec) -> tuple[tuple[str, ...], bool]:
    """The words and phrases that mean something to the model, in the prompt's order, and whether nothing else
    is asked for. A phrase counts where only words that ask for nothing stand between its own.
    """
    words = [word for word in re.findall(r"\w+", prompt.lower()) if word not in _SAY_NOTHING]
    phrases = {
        tuple(word for word in re.findall(r"\w+", phrase.lower()) if word not in _SAY_NOTHING): phrase
        for phrases in spec.vocabulary.values()
        for phrase in phrases
    }
    longest = max((len(phrase) for phrase in phrases), default=0)
    read: list[str] = []
    place, all_read = 0, True
    while place < len(words):
        lengths = range(min(longest, len(words) - place), 0, -1)
        length = next((n for n in lengths if tuple(words[place : place + n]) in phrases), None)
        if length is None:
            place, all_read = place + 1, False
            continue
        read.append(" ".join(words[place : place + length]))
        place += length
    return tuple(dict.fromkeys(read)), all_read
