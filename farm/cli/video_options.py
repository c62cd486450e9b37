"""The options that every command describing a video shares."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from farm.capabilities import LoraFile, WeightFile
from farm.request import DEFAULT_MODEL, PRESETS, file_here, request_options


def _options(
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            "-p",
            help="One for all inputs, or one for each.",
            show_default="none: how it moves is the model's choice",
        ),
    ] = None,
    negative_prompt: Annotated[
        str, typer.Option(help="What should not be seen.", show_default="nothing")
    ] = "",
    model: Annotated[str, typer.Option(help="By name (`farm models`), or a model folder.")] = DEFAULT_MODEL,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="\\[high=|low=]FILE: a transformer, GGUF or safetensors, in place of the model's.",
            show_default="the model's own",
        ),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            help="\\[high=|low=]FILE\\[:SCALE]: added to the model; several are, too.", show_default="none"
        ),
    ] = None,
    weight_format: Annotated[
        str | None,
        typer.Option(
            help="How weights are kept: bf16, float8 or int8.", show_default="16 bits, or what fits"
        ),
    ] = None,
    mode: Annotated[
        str, typer.Option(help="auto, independent, chain, refine, infill or co_denoise.")
    ] = "auto",
    draft_model: Annotated[
        str | None,
        typer.Option(
            help="A lighter model for the keyframes of infill; this one refines them.",
            show_default="this model, made lighter",
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(help="Length of the video.", show_default="4 for each picture, or the input video's"),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help="Length of the video, exactly.", show_default="as --seconds says")
    ] = None,
    fps: Annotated[
        str | None,
        typer.Option(
            help="Frames a second, such as 8 or 30000/1001.", show_default="the model's, or the input video's"
        ),
    ] = None,
    deliver_fps: Annotated[
        str | None,
        typer.Option(
            help="Frames a second of the finished video: those between are interpolated.",
            show_default="as rendered",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="WIDTHxHEIGHT in pixels.", show_default="the input's shape at the model's own area"
        ),
    ] = None,
    fit: Annotated[
        str, typer.Option(help="An input of another shape: crop its edges, pad it with bars, or stretch it.")
    ] = "crop",
    clip: Annotated[
        bool, typer.Option("--clip", help="An animated GIF, WebP, PNG or AVIF is a video to restyle.")
    ] = False,
    audio: Annotated[
        Path | None,
        typer.Option(
            help="A file with sound for the video.", readable=False, show_default="a restyled video's own"
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="A picture or video: the input video changes where it is white.",
            readable=False,
            show_default="everywhere",
        ),
    ] = None,
    reference: Annotated[
        list[Path] | None,
        typer.Option(
            help="A picture of what is to be seen; several: once for each.",
            readable=False,
            show_default="none",
        ),
    ] = None,
    window: Annotated[int | None, typer.Option(help="Frames a segment.", show_default="the model's")] = None,
    overlap: Annotated[
        int | None, typer.Option(help="Frames shared by neighbours.", show_default="the model's")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.", show_default="the model's")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale.", show_default="the model's")
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(help="How far a video is changed, above 0 to 1.", show_default="the model's"),
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="A quick look: the same motion in the model's fewest steps.")
    ] = False,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(p.name for p in PRESETS)}; other options win over it.", show_default="none"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same video.")] = 0,
    priority: Annotated[int, typer.Option(help="0 to 100, higher first.")] = 50,
    review: Annotated[
        bool,
        typer.Option("--review", help="Wait for you after its keyframes (`farm review`)."),
    ] = False,
) -> dict[str, Any]:
    """Their definition for typer; the value is that of ``request_options``, and ``clip`` where it is true."""
    options = request_options(
        prompts=prompt or (),
        negative_prompt=negative_prompt,
        model=model,
        weights=[file_here(WeightFile.model_validate(text)) for text in weights or ()],
        loras=[file_here(LoraFile.model_validate(text)) for text in lora or ()],
        weight_format=weight_format,
        mode=mode,
        draft_model=draft_model,
        seconds=seconds,
        frames=frames,
        fps=fps,
        deliver_fps=deliver_fps,
        size=size,
        fit=fit,
        audio=audio,
        mask=mask,
        references=reference or (),
        window=window,
        overlap=overlap,
        steps=steps,
        guidance=guidance,
        strength=strength,
        preview=preview,
        preset=preset,
        seed=seed,
        priority=priority,
        review=review,
    )
    return options | {"clip": True} if clip else options


def describes_video(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of ``_options`` and hand it their result as ``options``."""
    shared = inspect.signature(_options, eval_str=True).parameters
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "options"]

    def run(**values: Any) -> None:
        chosen = {name: values.pop(name) for name in shared}
        command(options=_options(**chosen), **values)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *shared.values())]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run
