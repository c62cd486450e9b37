"""Stable Video Diffusion: a denoising loop of our own over diffusers' models.

The loop is ours because the stock pipeline draws one noise for a whole window and batches the guidance
passes, and its UNet holds four times the activations that it needs. Any model folder with the same classes
runs here, whatever its size.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from farm.capabilities import EngineSpec, Rung
from farm.planning import RenderTask
from nodes.engines.common import Holder, frame_noise
from nodes.engines.engine import Attentions, Rendered, RenderInputs, Report
from nodes.engines.svd.decode import decode
from nodes.engines.svd.denoise import denoise, initial_latents
from nodes.engines.svd.encode import encode, encode_video, statistics
from nodes.engines.svd.layout import PARTS
from nodes.engines.svd.loading import read_model
from nodes.engines.svd.model import Model
from nodes.engines.svd.placements import CUDA, placements
from nodes.engines.window_check import check_first_image, first_image

#: Added to the number of a window's first frame: the noise its picture is given is drawn apart from the
#: latents'.
_OF_THE_PICTURE = 2**38


class StableVideoDiffusion:
    """One model on one device; the ``Engine`` protocol and its inner verbs.

    Args:
        spec: From ``svd_spec``, as the device holds it; its rungs are what ``load`` accepts.
        folder: A local folder in diffusers format.
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
        folder: Path,
        *,
        device: str = "cuda",
        dtype: torch.dtype | None = None,
        attention: Attentions = "sdpa",
        cpu_threads: int = 1,
    ) -> None:
        self.spec = spec
        on_cpu = torch.device(device).type == "cpu"
        dtype = dtype or (torch.float32 if on_cpu else torch.float16)
        read = partial(read_model, folder, dtype=dtype, attention=attention)
        self._held: Holder[Model] = Holder(
            spec,
            device=device,
            dtype=dtype,
            parts=PARTS,
            placements=(*CUDA, *placements("cpu" if on_cpu else "cuda")),
            read=read,
            read_in_files=partial(read, in_files=True),
            cpu_threads=cpu_threads,
        )
        # The verbs, each usable alone.
        self.encode = partial(encode, self._held)
        self.encode_video = partial(encode_video, self._held)
        self.initial_latents = partial(initial_latents, self._held)
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
        """Render the window (see ``Engine.render``); prompts are not read.

        From an image, whose latent is pulled to ``inputs.anchor``'s "mean" and "std" (C,); or from
        ``inputs.video``, noised to ``task.strength``. The hand-over holds "image", "mean" and "std" of the
        frame at ``task.handover_index``.

        Raises:
            OutOfMemory: the device could not hold it; the engine is unloaded and usable again.
            ValueError: the task and the inputs do not fit together, or no rung is loaded.
            FloatingPointError: a step gave values that are not finite.
        """
        check_first_image(self.spec, task, inputs)
        with self._held.rendering():
            return self._render(task, inputs, report)

    def unload(self) -> None:
        """Drop the model from device and host."""
        self._held.unload()

    def _render(self, task: RenderTask, inputs: RenderInputs, report: Report) -> Rendered:
        report("encode", 0, 1)
        conditioning = self.encode(
            first_image(inputs),
            num_frames=task.num_frames,
            fps=task.fps,
            guidance_scale=task.guidance_scale,
            noise=picture_noise(task),
            anchor=_anchor(task, inputs),
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
        report("decode", 0, task.num_frames)
        frames = self.decode(latents, on_frames=lambda done, total: report("decode", done, total))
        index = task.handover_index
        if index is None:
            return Rendered(frames)
        handover = {"image": np.ascontiguousarray(frames[index])}
        return Rendered(frames, handover | statistics(latents[index], self._held.placed.model))


def picture_noise(task: RenderTask) -> NDArray[np.float32]:
    """(3, H, W): what a window's picture is given, the same on any machine."""
    first = (_OF_THE_PICTURE + task.frame_indices[0],)
    shape = (3, task.height, task.width)
    drawn = frame_noise(task.seed, first, shape, noise_level=task.noise_level, take=task.take)
    return drawn.reshape(shape)


def _anchor(
    task: RenderTask, inputs: RenderInputs
) -> tuple[NDArray[np.float32], NDArray[np.float32], float] | None:
    """What the picture's latent is pulled to, and how strongly; None: it stays."""
    if task.anchor_strength == 0 or not {"mean", "std"} <= inputs.anchor.keys():
        return None
    mean, std = (np.asarray(inputs.anchor[name], dtype=np.float32) for name in ("mean", "std"))
    return mean, std, task.anchor_strength
