"""AnimateDiff: a denoising loop of our own over diffusers' models.

The loop is ours because the stock pipelines draw one noise for a whole window, draw a given frame's latent
outside the seed, and hold three times the activations that the U-Net needs.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch

from farm.capabilities import EngineSpec, Rung
from farm.planning import RenderTask
from nodes.engines.animatediff.denoise import denoise, starting_noise, step_noise
from nodes.engines.animatediff.encode import encode
from nodes.engines.animatediff.layout import PARTS
from nodes.engines.animatediff.loading import read_model
from nodes.engines.animatediff.model import Model
from nodes.engines.animatediff.placements import CUDA, placements
from nodes.engines.common import Holder, decode_frames, encode_frames
from nodes.engines.engine import Attentions, Rendered, RenderInputs, Report
from nodes.engines.folders import THE_FOLDERS, WeightSource
from nodes.engines.window_check import check_window


class AnimateDiff:
    """One model on one device; the ``Engine`` protocol and its inner verbs.

    Args:
        spec: From ``animatediff_spec``, as the device holds it; its rungs are what ``load`` accepts.
        folder: A local folder in diffusers format.
        device: "cuda" (the process's card) or "cpu".
        dtype: Of weights and activations; float16 on CUDA and float32 on a CPU unless given. Latents are
            float32 between steps.
        attention: "sdpa" (PyTorch's own kernels) or "xformers".
        cpu_threads: Cores a CPU engine may use: guidance rows and frames are computed side by side, each by
            one thread, so the frames do not depend on it.
        weights: A file in place of the U-Net's weights, LoRAs of pictures or of motion, and the format of the
            denoiser's linear layers.
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
        weights: WeightSource = THE_FOLDERS,
    ) -> None:
        self.spec = spec
        on_cpu = torch.device(device).type == "cpu"
        dtype = dtype or (torch.float32 if on_cpu else torch.float16)
        read = partial(read_model, folder, dtype=dtype, attention=attention, weights=weights)
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
        self.encode_video = partial(encode_frames, self._held)
        self.initial_latents = partial(starting_noise, self._held)
        self.denoise = partial(denoise, self._held)
        self.decode = partial(decode_frames, self._held)

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

        From the prompt, alone or beside any of: ``image``, ``last_image`` and ``known`` frames, which a
        SparseCtrl draws the window to (without one they are not read over a video, and refused else); and a
        ``video``, noised to ``task.strength``. A given frame is not in the window as it is: it is painted
        anew, near to it. It is to look like ``references``, pictures of any size, where there is an
        IP-Adapter. The hand-over holds "image", the frame at ``task.handover_index``.

        Raises:
            OutOfMemory: the device could not hold it; the engine is unloaded and usable again.
            ValueError: the task and the inputs do not fit together, or no rung is loaded.
            FloatingPointError: a step gave values that are not finite.
        """
        self._check(task, inputs)
        with self._held.rendering():
            return self._render(task, inputs, report)

    def unload(self) -> None:
        """Drop the model from device and host."""
        self._held.unload()

    @property
    def _takes_frames(self) -> bool:
        return "image" in self.spec.takes

    def _check(self, task: RenderTask, inputs: RenderInputs) -> None:
        check_window(self.spec, task, inputs)
        given = inputs.given(task.num_frames)
        if given and not self._takes_frames and inputs.video is None:
            raise ValueError(
                f"{len(given)} frames are given, and {self.spec.model} takes none: put a SparseCtrl for rgb "
                "into its folder, as controlnet"
            )
        if len(inputs.references) and "references" not in self.spec.takes:
            raise ValueError(
                f"{len(inputs.references)} references are given, and {self.spec.model} takes none: put an "
                "IP-Adapter into its folder, as ip_adapter"
            )
        size = (task.height, task.width, 3)
        for place, frame in given.items():
            if frame.shape != size or not 0 <= place < task.num_frames:
                raise ValueError(f"frame {place} of {task.num_frames} is {frame.shape}, expected {size}")

    def _render(self, task: RenderTask, inputs: RenderInputs, report: Report) -> Rendered:
        report("encode", 0, 1)
        conditioning = self.encode(
            task.prompt,
            task.negative_prompt,
            known=inputs.given(task.num_frames) if self._takes_frames else {},
            num_frames=task.num_frames,
            guidance_scale=task.guidance_scale,
            references=inputs.references,
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
            noise=step_noise(self._held, task),
        )
        torch.cuda.empty_cache()
        report("decode", 0, 1)
        frames = self.decode(latents)
        report("decode", 1, 1)
        if task.handover_index is None:
            return Rendered(frames)
        return Rendered(frames, {"image": np.ascontiguousarray(frames[task.handover_index])})
