"""LTX-Video: a denoising loop of our own over diffusers' models.

The loop is ours because the stock pipelines draw one noise for a whole window and fresh noise at every step,
make a modulation for every token, batch the guidance passes and decode the whole clip on the card.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from farm.capabilities import EngineSpec, Rung
from farm.planning import RenderTask
from nodes.engines.common import Holder, causal_indices, half_of_the_card
from nodes.engines.engine import Attentions, Rendered, RenderInputs, Report, unheard
from nodes.engines.folders import WeightSource
from nodes.engines.ltx.conditioning import Given
from nodes.engines.ltx.decode import decode
from nodes.engines.ltx.denoise import denoise, drawn, starting_window
from nodes.engines.ltx.encode import embeds_of, encode_frames, encode_text
from nodes.engines.ltx.inputs import check_inputs, clips_of
from nodes.engines.ltx.layout import PARTS, TEXT_PARTS
from nodes.engines.ltx.loading import read_model, read_text_model
from nodes.engines.ltx.model import Model, TextModel
from nodes.engines.ltx.placements import CUDA, TEXT_ENCODERS, placements
from nodes.engines.placement import once

#: Added to a task's noise level: the noise its decoder removes is drawn apart from that it starts with.
_DECODER_LEVELS = 1024


class LTXVideo:
    """One LTX-Video model on one device; the ``Engine`` protocol and its inner verbs.

    Args:
        spec: From ``ltx_spec``, as the device holds it; its rungs are what ``load`` accepts.
        folder: A local folder in diffusers format.
        device: "cuda" (the process's card) or "cpu".
        dtype: Of weights and activations; on CUDA bfloat16, or float16 where the card has no bfloat16, and
            float32 on a CPU unless given. Latents are float32 between steps.
        attention: "sdpa" (PyTorch's own kernels) or "xformers".
        compiled: What the transformer computes between its layers is compiled, once for a shape.
        cpu_threads: Cores a CPU engine may use: guidance passes are computed side by side, each by one
            thread, so the frames do not depend on it.
        weights: Of the ``transformer``, where they are not the folder's as they are: a file, LoRAs, a format.
    """

    def __init__(
        self,
        spec: EngineSpec,
        folder: Path,
        *,
        device: str = "cuda",
        dtype: torch.dtype | None = None,
        attention: Attentions = "sdpa",
        compiled: bool = False,
        cpu_threads: int = 1,
        weights: Mapping[str, WeightSource] = MappingProxyType({}),
    ) -> None:
        self.spec = spec
        on_cpu = torch.device(device).type == "cpu"
        dtype = dtype or (torch.float32 if on_cpu else half_of_the_card())
        held: dict[str, Any] = {"device": device, "dtype": dtype, "cpu_threads": cpu_threads}
        read = partial(
            read_model, folder, dtype=dtype, attention=attention, compiled=compiled, weights=weights
        )
        self._held: Holder[Model] = Holder(
            spec,
            parts=PARTS,
            placements=(*CUDA, *placements("cpu" if on_cpu else "cuda")),
            read=read,
            read_in_files=partial(read, in_files=True),
            **held,
        )
        read_text = partial(read_text_model, folder, dtype=dtype)
        self._text: Holder[TextModel] = Holder(
            spec,
            parts=TEXT_PARTS,
            placements=once(TEXT_ENCODERS.values()),
            read=read_text,
            read_in_files=partial(read_text, in_files=True),
            **held,
        )
        #: The last prompts that were encoded here: windows of one job have the same.
        self._last: tuple[tuple[str, str | None], dict[str, NDArray[np.float32]]] | None = None
        # The verbs, each usable alone.
        self.encode_frames = partial(encode_frames, self._held)
        self.starting_window = partial(starting_window, self._held)
        self.denoise = partial(denoise, self._held)
        self.decode = partial(decode, self._held)

    def load(self, rung: Rung) -> None:
        """Read the model when it is not in memory, and place it as the rung says.

        Raises:
            ValueError: the spec does not offer the rung.
            CannotRun: the model is incomplete or damaged, or the attention kernels do not load.
            OutOfMemory: the device cannot hold it at this rung; the engine is unloaded.
        """
        self._held.load(rung)

    def render(self, task: RenderTask, inputs: RenderInputs, report: Report) -> Rendered:
        """Render the window (see ``Engine.render``).

        From any of: ``image``, ``last_image``, ``known`` frames at multiples of eight and clips of 8k + 1
        frames that start there, ``handover["latents"]`` (C, k, h, w) behind the image, and a ``video`` noised
        to ``task.strength``; from the prompt alone without all of them. Frames that are given are latents
        that never change. The hand-over holds "image", the frame at ``task.handover_index``, and "latents",
        the ``task.handover_latents`` behind it.

        Raises:
            OutOfMemory: the device could not hold it; the engine is unloaded and usable again.
            ValueError: the task and the inputs do not fit together, or no rung is loaded.
            FloatingPointError: a step gave values that are not finite.
        """
        rung = self._held.placed.placement.rung
        check_inputs(self.spec, task, inputs)
        if not inputs.text:  # the encoder takes the place of what is loaded
            inputs = replace(inputs, text=self.encode_prompts(task, rung))
            self.load(rung)
        with self._held.rendering():
            return self._render(task, inputs, report)

    def encode_prompts(
        self, task: RenderTask, rung: Rung, report: Report = unheard
    ) -> dict[str, NDArray[np.float32]]:
        """The task's prompts as ``RenderInputs.text`` takes them (see ``TextEngine.encode_prompts``):
        ``prompt_embeds`` and, with guidance, ``negative_embeds``, each (L, T) float32 of its own tokens. The
        encoder alone is loaded, and let go.

        Raises:
            OutOfMemory: the device could not hold it; the engine is unloaded and usable again.
        """
        prompts = (task.prompt, task.negative_prompt if task.guidance_scale > 1 else None)
        if self._last is None or self._last[0] != prompts:
            self.unload()
            report("encode", 0, 1)
            self._text.load(rung)
            with self._text.rendering():
                self._last = prompts, encode_text(self._text, *prompts)
            self._text.unload()
            report("encode", 1, 1)
        return self._last[1]

    def unload(self) -> None:
        """Drop the model from device and host."""
        self._held.unload()
        self._text.unload()

    def _render(self, task: RenderTask, inputs: RenderInputs, report: Report) -> Rendered:
        report("encode", 0, 1)
        text = embeds_of(self._held, inputs.text, guided=task.guidance_scale > 1)
        given = self._given(task, inputs)
        video = None if inputs.video is None else self.encode_frames(inputs.video)
        window, sigmas, steps = self.starting_window(task, given, video)
        report("encode", 1, 1)
        # What one stage cached is not held beside the next: the peak is the largest stage, not their sum.
        torch.cuda.empty_cache()
        report("denoise", 0, len(steps))
        latents = self.denoise(
            window,
            text,
            sigmas=sigmas,
            guidance_scale=task.guidance_scale,
            steps=steps,
            on_step=lambda done, total: report("denoise", done, total),
        )
        torch.cuda.empty_cache()
        stride = self._stride
        keys = causal_indices(task.frame_indices, stride)
        noise = drawn(self._held, task, keys, noise_level=task.noise_level + _DECODER_LEVELS)
        report("decode", 0, task.num_frames)
        frames = self.decode(latents, noise, on_frames=lambda done, total: report("decode", done, total))
        index = task.handover_index
        if index is None:
            return Rendered(frames)
        handover = {"image": np.ascontiguousarray(frames[index])}
        if task.handover_latents:
            first = index // stride + 1
            taken = latents[:, first : first + task.handover_latents].cpu().numpy()
            return Rendered(frames, handover | {"latents": np.ascontiguousarray(taken)})
        return Rendered(frames, handover)

    @property
    def _stride(self) -> int:
        return self._held.placed.model.folder.frames_per_latent

    def _given(self, task: RenderTask, inputs: RenderInputs) -> list[Given]:
        """The latents that the inputs give, encoded where they are frames."""
        found = []
        for position, frames in clips_of(self.spec, task, inputs):
            latents = self.encode_frames(frames)
            if position == 0 and "latents" in inputs.handover:
                behind = np.asarray(inputs.handover["latents"], dtype=np.float32).copy()
                latents = torch.cat([latents[:, :1], torch.from_numpy(behind).to(latents)], dim=1)
            length = (latents.shape[1] - 1) * self._stride + 1
            keys = causal_indices(task.frame_indices[position : position + length], self._stride)
            noise = drawn(self._held, task, keys, noise_level=task.noise_level)
            found.append(Given(latents, noise, position))
        return found
