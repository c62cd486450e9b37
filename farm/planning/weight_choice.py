"""What is said of the weights that a job's model runs with, and whether they are those asked for. Pure."""

from __future__ import annotations

import re

from farm.capabilities import EngineSpec, WeightFormat
from farm.errors import CannotRun
from farm.request import JobRequest

#: How often a file's name says for how many steps it was made.
_STEPS_IN_NAME = re.compile(r"(?<![0-9])([0-9]{1,2})[-_ ]?steps?", re.IGNORECASE)
_IN_WORDS: dict[WeightFormat, str] = {"bf16": "16 bits", "float8": "float8", "int8": "int8"}


def check_spec(request: JobRequest, spec: EngineSpec) -> None:
    """
    Raises:
        CannotRun: the spec is not of the weights that are asked for.
    """
    asked, here = request.chosen_weights, spec.weights
    named = [*map(str, (*asked.files, *asked.loras))]
    if len(named) != len((*here.files, *here.loras)) or asked.format not in (None, here.format):
        raise CannotRun(
            f"{spec.model} runs with its own weights alone; leave out weights, loras and weight_format",
            param="weights",
        )


def weight_notes(request: JobRequest, spec: EngineSpec) -> tuple[str, ...]:
    """What is said of the weights a job runs with, and of what was assumed for them."""
    notes = []
    if "@" in spec.model and "@" not in request.model:
        notes.append(
            f"{request.model} is taken at the commit that its main branch is now; {spec.model} pins it"
        )
    asked, format = request.chosen_weights, spec.weights.format
    if format is not None and asked.format is None:
        cost = "how near that is to 16 bits was not measured with these weights"
        if spec.format_db is not None:
            cost = f"{spec.format_db:.0f} dB from 16 bits, as it was measured"
        notes.append(
            f"weights in {_IN_WORDS[format]} on all workers: none here has the memory for {spec.model} in 16 "
            f"bits; {cost}"
        )
    if asked.loras:
        notes.append(_steps_note(request, spec))
    return tuple(notes)


def _steps_note(request: JobRequest, spec: EngineSpec) -> str:
    """Where steps and guidance of a job with LoRAs come from."""
    steps, guidance = request.num_inference_steps, request.guidance_scale
    if steps is not None and guidance is not None:
        return f"{steps} steps and guidance {guidance:g}, as asked, with {len(request.loras)} LoRAs"
    taken = []
    if steps is None:
        taken.append(f"{spec.default_steps} steps")
    if guidance is None:
        taken.append(f"guidance {spec.default_guidance_scale:g}")
    if spec.steps_from is not None:
        return f"{' and '.join(taken)}: as {spec.steps_from} says of itself"
    told = (_STEPS_IN_NAME.search(lora.path.name) for lora in request.loras)
    said = next((found[1] for found in told if found), None)
    hint = (
        f"a LoRA's name says {said} steps: --steps {said} --guidance 1 follows it"
        if said is not None
        else "a few-step LoRA wants its own, such as --steps 4 --guidance 1"
    )
    return f"{' and '.join(taken)}: {spec.model}'s own, for no LoRA says otherwise; {hint}"
