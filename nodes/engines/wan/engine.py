"""Wan video: a denoising loop of our own over diffusers' models and transformers' text encoder.

The loop is ours because the stock pipelines know a first and a last frame and no other, keep a solver's
history, draw noise that depends on the window's length, and decode with the whole clip on the card.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from farm.capabilities import EngineSpec, Rung
from farm.planning import RenderTask
from nodes.engines.common import NEGATIVE, PROMPT, Holder, half_of_the_card
from nodes.engines.engine import Attentions, Rendered, RenderInputs, Report, unheard
from nodes.engines.folders import WeightSource
from nodes.engines.placement import once
from nodes.engines.wan.causal_vae import decode, encode_video
from nodes.engines.wan.condition import condition
from nodes.engines.wan.denoise import denoise, initial_latents, noise_of, steps_of
from nodes.engines.wan.inputs import LATENTS, check_inputs, known_frames, prefix_latents
from nodes.engines.wan.layout import TEXT_PARTS, read_folder
from nodes.engines.wan.loading import read_model, read_text_model
from nodes.engines.wan.model import Text
from nodes.engines.wan.spec import PLACEMENTS, placements
from nodes.engines.wan.text import encode_text, padded


class Wan:
    """One Wan model on one device; the ``Engine`` protocol and its inner verbs.

    Args:
        spec: From ``wan_spec``, as the device holds it; its rungs are what ``load`` accepts.
        source: A local folder in diffusers format.
        device: "cuda" (the process's card) or "cpu".
        dtype: Of weights and activations; on a card bfloat16 where it computes in it and float16 elsewhere,
            float32 on a CPU, unless given. Latents are float32 between steps.
        attention: "sdpa" (PyTorch's own kernels) or "xformers".
        compiled: What the transformer computes between its layers is compiled, once for a shape.
        cpu_threads: Cores a CPU engine may use: guidance passes are computed side by side, each by one
            thread, so the frames do not depend on it.
        weights: Of each expert by its name (``transformer``, and ``transformer_2`` for low noise), where they
            are not the folder's as they are: a file, LoRAs, a format.
    """

    def __init__(
        self,
        spec: EngineSpec,
        *,
        source: Path,
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
        rungs = (*PLACEMENTS, *placements("cpu" if on_cpu else "cuda"))
        read = partial(
            read_model,
            source,
            dtype=dtype,
            attention=attention,
            compiled=compiled,
            weights=weights,
            on_cpu=on_cpu,
        )
        self._held = Holder(
            spec,
            parts=read_folder(source).parts,
            placements=rungs,
            read=read,
            read_in_files=partial(read, in_files=True),
            **held,
        )
        read_text = partial(read_text_model, source, dtype=dtype)
        self._text = Holder(
            spec,
            parts=TEXT_PARTS,
            placements=once(rungs),
            read=read_text,
            read_in_files=partial(read_text, in_files=True),
            **held,
        )
        #: The last prompts that were encoded here: windows of one job have the same.
        self._last_key: tuple[str, str | None, float] | None = None
        self._last_text: dict[str, NDArray[np.float32]] = {}
        # The verbs, each usable alone.
        self.encode_video = partial(encode_video, self._held)
        self.condition = partial(condition, self._held)
        self.noise_of = partial(noise_of, self._held)
        self.initial_latents = partial(initial_latents, self._held)
        self.steps_of = partial(steps_of, self._held)
        self.denoise = partial(denoise, self._held)
        self.decode = partial(decode, self._held)

    def load(self, rung: Rung) -> None:
        """Read the model when it is not in memory, and place it as the rung says.

        Raises:
            ValueError: the spec does not offer the rung.
            CannotRun: the model is incomplete or none of this family, or the attention kernels do not load.
            OutOfMemory: the device cannot hold it at this rung; the engine is unloaded.
        """
        self._held.load(rung)

    def render(self, task: RenderTask, inputs: RenderInputs, report: Report) -> Rendered:
        """Render the window (see ``Engine.render``).

        From whatever frames are given, or from the prompt alone where the kind can; from an image and
        ``inputs.handover["latents"]`` (C, k, h, w), those of the frames behind it; or from ``inputs.video``,
        noised to ``task.strength``. With ``inputs.mask`` the video stays where it is not set, and in full
        strength nothing else of it is seen; ``inputs.references`` are what is to be seen. Prompts are encoded
        here unless ``inputs.text`` holds them. The hand-over holds "image", the frame at
        ``task.handover_index``, and "latents", those of the ``task.handover_latents`` behind it.

        Raises:
            OutOfMemory: the device could not hold it; the engine is unloaded and usable again.
            ValueError: the task and the inputs do not fit together, or no rung is loaded.
            FloatingPointError: a step gave values that are not finite.
        """
        check_inputs(self.spec, task, inputs)
        model = self._held.placed.model
        latent_shape = model.latent_shape(task.height, task.width)
        prefix = prefix_latents(self.spec, inputs.handover, latent_shape)
        known = known_frames(task, inputs)
        if not known and "text_alone" not in self.spec.takes:
            raise ValueError("image is missing: give a start image, a known frame or an input video")
        with self._held.rendering():
            return self._render(task, inputs, report, known, prefix)

    def encode_prompts(
        self, task: RenderTask, rung: Rung, report: Report = unheard
    ) -> dict[str, NDArray[np.float32]]:
        """The task's prompts as ``RenderInputs.text`` takes them: ``prompt_embeds`` and, with guidance,
        ``negative_embeds``, each (L, D) float32 of its own tokens. The encoder alone is loaded, and let go.

        Raises:
            OutOfMemory: the device could not hold it; the engine is unloaded and usable again.
        """
        self.unload()
        return self._encoded(task, rung, report)

    def unload(self) -> None:
        """Drop the model from device and host."""
        self._held.unload()
        self._text.unload()

    def text_of(self, task: RenderTask, inputs: RenderInputs) -> Text:
        """The prompts of a task, encoded here unless they came with its inputs."""
        text = inputs.text
        if not text:
            text = self._encoded(task, self._held.placed.placement.rung, unheard)
        model = self._held.placed.model
        length, width = model.facts.max_sequence_length, model.folder.transformer["text_dim"]
        like = torch.empty(0, device=self._held.device, dtype=self._held.dtype)
        guided = task.guidance_scale > 1
        return Text(
            prompt=padded(text, PROMPT, length, width, like),
            negative=padded(text, NEGATIVE, length, width, like) if guided else None,
            guidance_scale=task.guidance_scale,
        )

    def _encoded(self, task: RenderTask, rung: Rung, report: Report) -> dict[str, NDArray[np.float32]]:
        negative = task.negative_prompt if task.guidance_scale > 1 else None
        key = (task.prompt, negative, task.fps)
        if key != self._last_key:
            report("encode", 0, 1)
            self._text.load(rung)
            with self._text.rendering():
                self._last_text = encode_text(self._text, task.prompt, negative, fps=task.fps)
            self._last_key = key
            self._text.unload()
        report("encode", 1, 1)
        return self._last_text

    def _render(
        self,
        task: RenderTask,
        inputs: RenderInputs,
        report: Report,
        known: dict[int, NDArray[np.uint8]],
        prefix: NDArray[np.float32] | None,
    ) -> Rendered:
        report("encode", 0, 2)
        text = self.text_of(task, inputs)
        report("encode", 1, 2)
        given = self.condition(
            known,
            num_frames=task.num_frames,
            height=task.height,
            width=task.width,
            prefix=prefix,
            video=None if inputs.mask is None else inputs.video,
            mask=inputs.mask,
            references=inputs.references,
        )
        noise = self.noise_of(task, num_references=given.num_references)
        # What a mask keeps is given: in full strength nothing is left to start from.
        from_noise = inputs.mask is not None and task.strength == 1
        latents, steps = self.initial_latents(task, noise(0), None if from_noise else inputs.video)
        report("encode", 2, 2)
        # What one stage cached is not held beside the next: the peak is the largest stage, not their sum.
        torch.cuda.empty_cache()
        report("denoise", 0, len(steps))
        latents = self.denoise(
            latents,
            text,
            given,
            steps=steps,
            noise=noise,
            on_step=lambda done, total: report("denoise", done, total),
        )
        torch.cuda.empty_cache()
        report("decode", 0, latents.shape[1])
        frames = self.decode(latents, on_latent=lambda done, total: report("decode", done, total))
        if task.handover_index is None:
            return Rendered(frames)
        handover: dict[str, NDArray[np.generic]] = {"image": frames[task.handover_index]}
        if task.handover_latents:
            first = task.handover_index // self.spec.frames.frames_per_latent + 1
            handover[LATENTS] = latents[:, first : first + task.handover_latents].cpu().numpy()
        return Rendered(frames, {name: np.ascontiguousarray(array) for name, array in handover.items()})
