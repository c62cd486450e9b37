"""I2VGen-XL image-to-video: a denoising loop of our own over diffusers' models.

The loop is ours because the stock pipeline reports no steps, draws its image latent outside the seed and
breaks on current transformers. Any model folder with the same classes runs here, whatever its size.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from farm.engine_spec import EngineSpec, Rung
from farm.render_task import RenderTask
from nodes.engine import Attentions, Frames, OutOfMemory, Rendered, RenderInputs, Report
from nodes.engines.i2vgen_xl_conditioning import (
    Conditioning,
    TensorCache,
    channel_statistics,
    clip_pixels,
    image_hash,
    vae_pixels,
    with_frame_clock,
)
from nodes.engines.i2vgen_xl_cpu import InTurn, SideBySide, keep_freed_memory, return_freed_memory
from nodes.engines.i2vgen_xl_folder import model_folder
from nodes.engines.i2vgen_xl_inputs import check_inputs, first_image, first_latent
from nodes.engines.i2vgen_xl_loading import read_model
from nodes.engines.i2vgen_xl_placing import PlacedModel
from nodes.engines.i2vgen_xl_spec import PLACEMENTS, placements
from nodes.noise import frame_noise
from nodes.vram import out_of_memory_is_ours, release

#: Embeddings and first-frame latents kept on the host (under 1 MB each).
CACHE_SIZE = 64

OnStep = Callable[[int, int], None]
"""``on_step(done, total)``: called after every denoising step; may raise to stop."""


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
        self.device = device
        self._on_cpu = torch.device(device).type == "cpu"
        self.dtype = dtype or (torch.float32 if self._on_cpu else torch.float16)
        self._source = source
        self._revision = revision
        self._attention: Attentions = attention
        self._placed: PlacedModel | None = None
        self._cache = TensorCache(CACHE_SIZE)
        self._calls = SideBySide(cpu_threads) if self._on_cpu else InTurn()
        if self._on_cpu:
            keep_freed_memory()

    # -- the protocol -----------------------------------------------------------------------------------

    def load(self, rung: Rung) -> None:
        """Read the model when it is not in memory, and place it as the rung says.

        Raises:
            ValueError: the spec does not offer the rung.
            CannotRun: the model is incomplete, cannot be downloaded, or the attention kernels do not load.
            InvalidInput: the source is neither a folder nor a pinned repository.
            OutOfMemory: the device cannot hold it at this rung; the engine is unloaded.
        """
        offered = [r.name for r in self.spec.rungs]
        if rung not in offered:
            raise ValueError(f"rung is {rung!r}: {self.spec.model} offers {', '.join(offered)}")
        if self._placed is not None and self._placed.placement.rung == rung:
            return
        by_rung = {p.rung: p for p in (*PLACEMENTS, *placements("cpu" if self._on_cpu else "cuda"))}
        try:
            with out_of_memory_is_ours():
                if self._placed is None:
                    folder = model_folder(self._source, self._revision, half=self.dtype != torch.float32)
                    model = read_model(
                        folder, dtype=self.dtype, attention=self._attention, one_row=self._on_cpu
                    )
                    self._placed = PlacedModel(model, self.device, by_rung[rung])
                else:
                    self._placed.place(by_rung[rung])
        except OutOfMemory:
            self.unload()
            raise

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
        check_inputs(self.spec, task, inputs)
        try:
            with out_of_memory_is_ours():
                return self._render(task, inputs, report)
        except OutOfMemory:
            self.unload()
            raise
        finally:
            if self._on_cpu:
                return_freed_memory()

    def unload(self) -> None:
        """Drop the model from device and host."""
        self._placed = None
        release()

    # -- the verbs, each usable alone -------------------------------------------------------------------

    @torch.no_grad()
    def encode(
        self,
        image: NDArray[np.uint8],
        prompt: str,
        negative_prompt: str = "",
        *,
        num_frames: int,
        fps: float,
        guidance_scale: float,
        first_latent: NDArray[np.float32] | None = None,
        generator: torch.Generator | None = None,
    ) -> Conditioning:
        """Make the conditioning of a window. Embeddings and latents are cached by content.

        Args:
            image: (H, W, 3) uint8 at the size to render.
            prompt: What should happen.
            negative_prompt: What should not.
            num_frames: Frames of the window.
            fps: Frame rate the motion is meant for.
            guidance_scale: Over 1 guides, at twice the work.
            first_latent: (C, h, w) latent of the first frame; the image is not encoded then.
            generator: Draw the first frame's latent from the VAE's distribution as the stock pipeline does,
                in place of its mode.
        """
        placed = self._loaded()
        texts = [negative_prompt, prompt] if guidance_scale > 1 else [prompt]
        prompt_embeds = self._cached(
            "text_encoder", [(f"text {text}", partial(self._embed_text, text)) for text in texts]
        )
        key = image_hash(image)
        image_embeds = self._cached("image_encoder", [(f"image {key}", partial(self._embed_image, image))])
        if first_latent is not None:
            first = torch.from_numpy(first_latent.copy())[None].to(self.device, self.dtype)
        elif generator is not None:
            with placed.on_card("vae"):
                first = self._made(partial(self._encode_frame, image, generator)).to(self.dtype)
        else:
            first = self._cached("vae", [(f"latent {key}", partial(self._encode_frame, image))])
            first = first.to(self.dtype)
        if guidance_scale > 1:
            image_embeds = torch.cat([torch.zeros_like(image_embeds), image_embeds])
        return Conditioning(
            prompt_embeds=prompt_embeds,
            image_embeds=image_embeds,
            image_latents=with_frame_clock(first, num_frames),
            fps=fps,
            guidance_scale=guidance_scale,
        )

    @torch.no_grad()
    def encode_video(self, frames: Frames) -> torch.Tensor:
        """(F, H, W, 3) uint8 to latents (F, C, h, w) float32: each frame's mode, one frame at a time."""
        placed = self._loaded()
        with placed.on_card("vae"):
            latents = self._calls.map(self._encode_frame, frames, at_once=placed.placement.decode_frames)
        return torch.cat(latents)

    @torch.no_grad()
    def denoise(
        self,
        latents: torch.Tensor,
        conditioning: Conditioning,
        *,
        num_inference_steps: int,
        steps: range | None = None,
        on_step: OnStep | None = None,
    ) -> torch.Tensor:
        """Run the given steps of a schedule of ``num_inference_steps`` on latents (F, C, h, w) float32.

        DDIM without noise has no memory between steps, so a schedule may be run in pieces, and overlapping
        windows may be fused in between.

        Raises:
            FloatingPointError: a step gave values that are not finite.
        """
        placed = self._loaded()
        scheduler = placed.model.scheduler
        scheduler.set_timesteps(num_inference_steps)
        steps = range(len(scheduler.timesteps)) if steps is None else steps
        latents = latents.to(self.device, torch.float32)
        with placed.on_card("unet"):
            for done, step in enumerate(steps, start=1):
                timestep = scheduler.timesteps[step]
                predicted = self._predict(latents, timestep, conditioning)
                latents = scheduler.step(predicted, timestep, latents).prev_sample
                if not bool(torch.isfinite(latents).all()):
                    raise FloatingPointError(
                        f"step {step + 1} of {num_inference_steps} gave values that are not finite in "
                        f"{self.dtype}: lower the guidance scale, or load the model in bfloat16"
                    )
                if on_step is not None:
                    on_step(done, len(steps))
        return latents

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> Frames:
        """Latents (F, C, h, w) to frames (F, H, W, 3) uint8."""
        placed = self._loaded()
        at_once = placed.placement.decode_frames
        chunks = torch.split(latents, 1 if self._on_cpu else at_once)
        with placed.on_card("vae"):
            frames = self._calls.map(self._decode, chunks, at_once=at_once)
        return torch.cat(frames).numpy()

    def initial_latents(self, task: RenderTask, video: Frames | None = None) -> tuple[torch.Tensor, range]:
        """Noised latents (F, C, h, w) of a task and the steps left to run on them.

        From noise: all steps. From a video: its latents noised to ``task.strength``, and the last
        strength x steps (SDEdit, Meng et al. 2022).
        """
        model = self._loaded().model
        drawn = frame_noise(
            task.seed,
            task.frame_indices,
            model.latent_shape(task.height, task.width),
            noise_level=task.noise_level,
            take=task.take,
        )
        noise = torch.from_numpy(drawn).to(self.device)
        scheduler = model.scheduler
        scheduler.set_timesteps(task.num_inference_steps)
        total = len(scheduler.timesteps)
        if video is None or task.strength is None:
            return noise * scheduler.init_noise_sigma, range(total)
        start = total - min(max(int(total * task.strength), 1), total)
        clean = self.encode_video(video)
        return scheduler.add_noise(clean, noise, scheduler.timesteps[start : start + 1]), range(start, total)

    # -- inside -----------------------------------------------------------------------------------------

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

    def _predict(
        self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        placed = self._loaded()
        unet = placed.model.components["unet"]
        sample = latents.to(self.dtype).transpose(0, 1)[None]  # (1, C, F, h, w)
        at_once = placed.placement.guided_batch
        size = 1 if self._on_cpu else at_once

        def predict(first: int) -> torch.Tensor:
            prompt_embeds = conditioning.prompt_embeds[first : first + size]
            count = len(prompt_embeds)
            predicted: torch.Tensor = unet(
                sample.expand(count, -1, -1, -1, -1),
                timestep.to(self.device),
                fps=torch.full((count,), conditioning.fps, device=self.device),
                image_latents=conditioning.image_latents.expand(count, -1, -1, -1, -1),
                image_embeddings=conditioning.image_embeds[first : first + size],
                encoder_hidden_states=prompt_embeds,
            ).sample
            return predicted.float()

        rows = range(0, conditioning.prompt_embeds.shape[0], size)
        # Streamed weights are there for one pass at a time.
        predicted = self._calls.map(predict, rows, at_once=1 if placed.placement.unet_streamed else at_once)
        guided = torch.cat(predicted)
        if conditioning.guided:
            guided = guided[:1] + conditioning.guidance_scale * (guided[1:] - guided[:1])
        return guided[0].transpose(0, 1)

    def _cached(self, component: str, wanted: list[tuple[str, Callable[[], torch.Tensor]]]) -> torch.Tensor:
        """One batch of tensors by key; the component comes to the card only when one of them is missing."""
        here = self._cache.holds(*(key for key, _ in wanted))
        with nullcontext() if here else self._loaded().on_card(component):
            tensors = [self._cache.get(key, partial(self._made, make)) for key, make in wanted]
        return torch.cat(tensors).to(self.device)

    def _made(self, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        return self._calls.map(lambda make: make(), [make])[0]

    def _embed_text(self, text: str) -> torch.Tensor:
        model = self._loaded().model
        tokens = model.tokenizer(
            text,
            padding="max_length",
            max_length=model.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        embeds: torch.Tensor = model.components["text_encoder"](tokens.input_ids.to(self.device))
        return embeds

    def _embed_image(self, image: NDArray[np.uint8]) -> torch.Tensor:
        model = self._loaded().model
        pixels = clip_pixels(image, size=model.clip_size, mean=model.clip_mean, std=model.clip_std)
        encoded = model.components["image_encoder"](pixels.to(self.device, self.dtype))
        embeds: torch.Tensor = encoded.image_embeds
        return embeds[:, None]

    def _encode_frame(
        self, frame: NDArray[np.uint8], generator: torch.Generator | None = None
    ) -> torch.Tensor:
        vae = self._loaded().model.components["vae"]
        distribution = vae.encode(vae_pixels(frame).to(self.device, self.dtype)).latent_dist
        latent: torch.Tensor = distribution.mode() if generator is None else distribution.sample(generator)
        return latent.float() * float(vae.config.scaling_factor)

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        vae = self._loaded().model.components["vae"]
        scaled = latents.to(self.device, self.dtype) / vae.config.scaling_factor
        pixels: torch.Tensor = (vae.decode(scaled).sample.float() / 2 + 0.5).clamp(0, 1)
        return (pixels * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()

    def _loaded(self) -> PlacedModel:
        if self._placed is None:
            raise ValueError(f"{self.spec.model} is not loaded: call load(rung) first")
        return self._placed
