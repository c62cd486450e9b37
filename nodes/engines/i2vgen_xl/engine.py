"""I2VGen-XL image-to-video: a denoising loop of our own over diffusers' models.

The loop is ours because the stock pipeline reports no steps, draws its image latent outside the seed and
breaks on current transformers. Any model folder with the same classes runs here, whatever its size.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch

from farm.capabilities import EngineSpec, Rung
from farm.planning import RenderTask
from nodes.engines.common import (
    Holder,
    PlacedModel,
    channel_statistics,
    decode_frames,
    encode_frames,
    starting_latents,
)
from nodes.engines.engine import Attentions, Rendered, RenderInputs, Report
from nodes.engines.folders import model_folder
from nodes.engines.i2vgen_xl.denoise import denoise
from nodes.engines.i2vgen_xl.encode import encode
from nodes.engines.i2vgen_xl.inputs import first_latent
from nodes.engines.i2vgen_xl.layout import LAYOUT, PARTS
from nodes.engines.i2vgen_xl.loading import read_model
from nodes.engines.i2vgen_xl.model import Model
from nodes.engines.i2vgen_xl.spec import PLACEMENTS, placements
from nodes.engines.window_check import check_first_image, first_image


class I2VGenXL:
    """One I2VGen-XL model on one device; the ``Engine`` protocol and its inner verbs.

    Args:
        spec: From ``i2vgen_xl_spec``, as the device holds it; its rungs are what ``load`` accepts.
        source: A local folder in diffusers format, or a hub repository "owner/name".
        revision: Pinned commit of a hub repository; None for a folder.
        device: "cuda" (the process's card) or "cpu".
        dtype: Of weights and activations; float16 on CUDA and float32 on a CPU unless given. Latents are
            float32 between steps.
        attention: "sdpa" (PyTorch's own kernels) or "xformers".
        cpu_threads: Cores a CPU engine may use: guidance rows and frames are computed side by side, each by
            one thread, so the frames do not depend on it.
    """

    def __init__(
        self,
        spec: EngineSpec,
        *,
        source: Path | str,
        revision: str | None = None,
        device: str = "cuda",
        dtype: torch.dtype | None = None,
        attention: Attentions = "sdpa",
        cpu_threads: int = 1,
    ) -> None:
        self.spec = spec
        on_cpu = torch.device(device).type == "cpu"
        dtype = dtype or (torch.float32 if on_cpu else torch.float16)

        def read() -> Model:
            folder = model_folder(source, revision, layout=LAYOUT, half=dtype != torch.float32)
            return read_model(folder, dtype=dtype, attention=attention, one_row=on_cpu)

        self._held = Holder(
            spec,
            device=device,
            dtype=dtype,
            parts=PARTS,
            placements=(*PLACEMENTS, *placements("cpu" if on_cpu else "cuda")),
            read=read,
            cpu_threads=cpu_threads,
        )
        # The verbs, each usable alone.
        self.encode = partial(encode, self._held)
        self.encode_video = partial(encode_frames, self._held)
        self.initial_latents = partial(starting_latents, self._held)
        self.denoise = partial(denoise, self._held)
        self.decode = partial(decode_frames, self._held)

    def load(self, rung: Rung) -> None:
        """Read the model when it is not in memory, and place it as the rung says.

        Raises:
            ValueError: the spec does not offer the rung.
            CannotRun: the model is incomplete, cannot be downloaded, or the attention kernels do not load.
            InvalidInput: the source is neither a folder nor a pinned repository.
            OutOfMemory: the device cannot hold it at this rung; the engine is unloaded.
        """
        self._held.load(rung)

    def render(self, task: RenderTask, inputs: RenderInputs, report: Report) -> Rendered:
        """Render the window (see ``Engine.render``).

        From an image; from an image and ``inputs.handover["latent"]`` (C, h, w), which replaces the image's
        own latent, pulled to ``inputs.anchor``'s "mean" and "std" (C,); or from ``inputs.video``, noised to
        ``task.strength``. The hand-over holds "image", "latent", "mean" and "std" of the frame at
        ``task.handover_index``.

        Raises:
            OutOfMemory: the device could not hold it; the engine is unloaded and usable again.
            ValueError: the task and the inputs do not fit together, or no rung is loaded.
            FloatingPointError: a step gave values that are not finite.
        """
        self._loaded()
        check_first_image(self.spec, task, inputs)
        with self._held.rendering():
            return self._render(task, inputs, report)

    def unload(self) -> None:
        """Drop the model from device and host."""
        self._held.unload()

    def _render(self, task: RenderTask, inputs: RenderInputs, report: Report) -> Rendered:
        report("encode", 0, 1)
        latent_shape = self._loaded().model.latent_shape(task.height, task.width)
        conditioning = self.encode(
            first_image(inputs),
            task.prompt,
            task.negative_prompt,
            num_frames=task.num_frames,
            fps=task.fps,
            guidance_scale=task.guidance_scale,
            first_latent=first_latent(task, inputs, latent_shape),
        )
        latents, steps = self.initial_latents(task, inputs.video)
        report("encode", 1, 1)
        # What one stage cached is not held beside the next: the peak is the largest stage, not their sum.
        torch.cuda.empty_cache()
        report("denoise", 0, len(steps))
        latents = self.denoise(
            latents,
            conditioning,
            num_inference_steps=task.num_inference_steps,
            steps=steps,
            on_step=lambda done, total: report("denoise", done, total),
        )
        torch.cuda.empty_cache()
        report("decode", 0, 1)
        frames = self.decode(latents)
        report("decode", 1, 1)
        if task.handover_index is None:
            return Rendered(frames)
        latent = latents[task.handover_index].cpu().numpy()
        handover = {"image": frames[task.handover_index], "latent": latent, **channel_statistics(latent)}
        return Rendered(frames, {name: np.ascontiguousarray(array) for name, array in handover.items()})

    def _loaded(self) -> PlacedModel[Model]:
        return self._held.placed
