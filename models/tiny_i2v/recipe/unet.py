"""Stage three: the UNet learns to move a picture as its prompt says. One process a GPU."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from transformers import CLIPVisionModelWithProjection

from models.tiny_i2v.recipe.architecture import new_scheduler, new_unet
from models.tiny_i2v.recipe.clips import Batch, ClipMaker, Prompts, Shape
from models.tiny_i2v.recipe.muon import Muon
from models.tiny_i2v.recipe.pictures import HELD_OUT_SEED, Atlas, atlas, procedural_pictures
from models.tiny_i2v.recipe.vae import agreed, average_gradients

#: Below 1, more noise levels are drawn at the noisy end, where the motion is decided.
NOISY_END = 0.7
#: A batch of clips is filmed and encoded once and learnt from this often, with other noise each time.
USES_OF_A_BATCH = 2
AVERAGE = 0.9985


@dataclass(frozen=True)
class Stage:
    """How long to train on which shapes (drawn by weight), and how the learning rate goes."""

    minutes: float
    shapes: tuple[tuple[Shape, float], ...]
    learning_rate: float
    #: Share of the stage at its end in which the rate falls linearly to nothing.
    decay: float
    warmup_steps: int


class SmallAttention:
    """Attention for short sequences and many rows: products written out, for the compiler to fuse."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        rows, length, _ = hidden_states.shape
        query, key, value = (
            project(x).view(rows, x.shape[1], attn.heads, -1)
            for project, x in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )
        if max(length, context.shape[1]) <= 16:
            scores = (query[:, :, None].float() * key[:, None].float()).sum(-1) * query.shape[-1] ** -0.5
            shares = scores.softmax(2)
            mixed = (shares[..., None] * value[:, None].float()).sum(2).to(query.dtype)
        else:
            query, key, value = (x.transpose(1, 2) for x in (query, key, value))
            mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        return attn.to_out[0](mixed.reshape(rows, length, -1))  # type: ignore[no-any-return]


def prepare(unet: Any) -> None:
    """Swap in what trains fast: the same function of the same weights."""
    unet.set_attn_processor(SmallAttention())
    for module in unet.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.forward = _flat_convolution.__get__(module)


def _flat_convolution(self: torch.nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
    """A (3, 1, 1) convolution over (N, C, F, h, w) as one over (N, C, F, h x w)."""
    made = F.conv2d(x.flatten(3), self.weight.squeeze(-1), self.bias, padding=(1, 0))
    return made.unflatten(3, x.shape[3:])


class UnetTrainer:
    """The training state of one process."""

    def __init__(
        self,
        folder: Path,
        stage: Stage,
        *,
        rank: int,
        world: int,
        seed: int,
        pictures: int,
        fast: bool,
        optimizer: str,
    ) -> None:
        self.stage, self.rank, self.world = stage, rank, world
        self.device = f"cuda:{rank}" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(seed)
        self.unet = new_unet().to(self.device)
        self.weights = [w for w in self.unet.parameters() if w.requires_grad]
        self.average = [w.detach().clone() for w in self.weights]
        self.optimizers = _optimizers(self.unet, stage.learning_rate, optimizer)
        self.step = 0
        prepare(self.unet)
        vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).to(self.device).eval()
        vision = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder", dtype=torch.float32)
        vision.to(self.device).eval()
        prompts = Prompts(folder, self.device, each=250, seed=seed + rank)
        generator = torch.Generator(self.device).manual_seed(seed + 17 * rank + 1)
        self.clips = ClipMaker(
            atlas(pictures, 384, seed + 1000 * rank + 1, self.device),
            prompts,
            vae,
            vision,
            generator,
            fast=fast,
        )
        tests = 48 if torch.cuda.is_available() else 2
        test = Atlas(procedural_pictures(tests, 384, HELD_OUT_SEED, self.device))
        judge = ClipMaker(test, prompts, vae, vision, torch.Generator(self.device).manual_seed(5), fast=False)
        self.test_batch = judge.make(Shape(8, 128, tests), told=1.0)
        self.generator = torch.Generator(self.device).manual_seed(seed + 31 * rank + 2)
        self.alphas = new_scheduler().alphas_cumprod.to(self.device)
        # Compiling takes longer than the few steps on the rarer shapes are worth.
        self._compiled = torch.compile(self.unet, dynamic=False) if fast else self.unet
        self._compiled_shape = stage.shapes[0][0]

    def run(self, *, save: Any, save_every_s: float = 120) -> None:
        """Train for the stage's time; ``save(trainer)`` is called by the first process now and then."""
        stage, started = self.stage, time.monotonic()
        last_said = last_saved = 0.0
        compiled = {shape: False for shape, _ in stage.shapes}
        clock_on = 0.0  # seconds of training, compiling left out
        rates = [group["lr"] for o in self.optimizers for group in o.param_groups]
        first_step = self.step
        while clock_on < 60 * stage.minutes:
            began = time.monotonic()
            done = clock_on / (60 * stage.minutes)
            rate = min(1, (self.step - first_step + 1) / stage.warmup_steps) * min(
                1, (1 - done) / stage.decay
            )
            groups = [group for o in self.optimizers for group in o.param_groups]
            for group, full in zip(groups, rates, strict=True):
                group["lr"] = full * rate
            shape = self._shape()
            batch = self.clips.make(shape)
            forward = self._compiled if shape == self._compiled_shape else self.unet
            for _ in range(USES_OF_A_BATCH):
                loss = self._learn(batch, forward)
            if self.device != "cpu":
                torch.cuda.synchronize()
            if compiled[shape]:
                # All processes agree on the time, so that they stop together.
                clock_on = agreed(clock_on + time.monotonic() - began, self.world, self.device)
            compiled[shape] = True
            if self.rank == 0 and time.monotonic() - last_said > 30:
                last_said = time.monotonic()
                elapsed = time.monotonic() - started
                test = " ".join(f"{v:.3f}" for v in self.test_losses())
                print(
                    f"unet step {self.step} {done:.0%} {elapsed:.0f} s loss {float(loss):.4f} test {test}",
                    flush=True,
                )
            if self.rank == 0 and time.monotonic() - last_saved > save_every_s and done > 0.05:
                last_saved = time.monotonic()
                save(self)

    def _shape(self) -> Shape:
        """The same draw in every process: they wait for each other."""
        draw = torch.rand((), generator=torch.Generator().manual_seed(self.step)).item()
        total = sum(weight for _, weight in self.stage.shapes)
        for shape, weight in self.stage.shapes:
            draw -= weight / total
            if draw < 0:
                return shape
        return self.stage.shapes[0][0]

    def loss(self, forward: Any, batch: Batch, timestep: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Mean squared error of v, weighted by place (N clips, timesteps (N,))."""
        alpha = self.alphas[timestep].view(-1, 1, 1, 1, 1)
        signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
        noisy = signal * batch.latents + sigma * noise
        wanted = signal * noise - sigma * batch.latents
        with torch.autocast(self.device.split(":")[0], torch.bfloat16):
            made = forward(
                noisy,
                timestep,
                fps=batch.fps,
                image_latents=batch.image_latents,
                image_embeddings=batch.image,
                encoder_hidden_states=batch.text,
                return_dict=False,
            )[0]
        squared = (made.float() - wanted).square() * batch.weight
        return squared.mean() / batch.weight.mean()

    def _learn(self, batch: Batch, forward: Any) -> torch.Tensor:
        count = len(batch.latents)
        draw = torch.rand(count, generator=self.generator, device=self.device) ** NOISY_END
        noise = torch.randn(batch.latents.shape, generator=self.generator, device=self.device)
        loss = self.loss(forward, batch, (draw * 999.999).long(), noise)
        loss.backward()
        average_gradients(self.weights, self.world)
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.unet.zero_grad(set_to_none=True)
        self.step += 1
        keep = min(AVERAGE, (self.step + 1) / (self.step + 10))
        torch._foreach_lerp_(self.average, [w.detach() for w in self.weights], 1 - keep)
        return loss.detach()

    @torch.no_grad()
    def test_losses(self) -> list[float]:
        """Loss on held-out clips at four noise levels, noisiest first."""
        losses = []
        for level in (999, 800, 500, 200):
            count = len(self.test_batch.latents)
            noise = torch.randn(self.test_batch.latents.shape, generator=torch.Generator().manual_seed(level))
            timestep = torch.full((count,), level, device=self.device)
            losses.append(float(self.loss(self.unet, self.test_batch, timestep, noise.to(self.device))))
        return losses

    def averaged(self) -> Any:
        """A new UNet with the averaged weights."""
        unet = new_unet()
        named = [n for n, w in self.unet.named_parameters() if w.requires_grad]
        unet.load_state_dict(dict(zip(named, (w.cpu() for w in self.average), strict=True)), strict=False)
        return unet

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "weights": [w.detach() for w in self.weights],
            "average": self.average,
            "optimizers": [o.state_dict() for o in self.optimizers],
        }

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from ``state()``; without the optimizers' state they start anew."""
        self.step = state["step"]
        for name, into in (("weights", self.weights), ("average", self.average)):
            for own, loaded in zip(into, state[name], strict=True):
                own.copy_(loaded)
        rates = [[g["lr"] for g in o.param_groups] for o in self.optimizers]
        for optimizer, saved, full in zip(self.optimizers, state.get("optimizers", ()), rates, strict=False):
            optimizer.load_state_dict(saved)
            for group, rate in zip(optimizer.param_groups, full, strict=True):
                group["lr"] = rate


def _optimizers(unet: Any, learning_rate: float, kind: str) -> list[torch.optim.Optimizer]:
    named = [(n, w) for n, w in unet.named_parameters() if w.requires_grad]
    matrices = [
        w for n, w in named if kind == "muon" and w.ndim >= 2 and not n.startswith(("conv_in", "conv_out"))
    ]
    held = {id(w) for w in matrices}
    rest = [w for _, w in named if id(w) not in held]
    fused = torch.cuda.is_available()
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=fused)
    ]
    if matrices:
        optimizers.append(Muon(matrices, learning_rate=20 * learning_rate))
    return optimizers
