"""Stage two: the autoencoder, on pictures first and then on whole clips. One process a GPU.

Pictures teach its convolutions their last tap in time; clips begin from there with the temporal resamplers
repeating and picking frames (``whole_clip.start_simple``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from models.tiny_wan.recipe import whole_clip
from models.tiny_wan.recipe.architecture import new_vae
from models.tiny_wan.recipe.data.pictures import Atlas
from models.tiny_wan.recipe.measure import HeldOutClip, autoencoder_figures
from models.tiny_wan.recipe.scenes import Scenes, Shape
from models.tiny_wan.recipe.trainer import Trainer, optimizers_of

#: Kinds of scenes the autoencoder sees, by share; most clips are a camera's.
SHARES = {"plain": 0.66, "combined": 0.12, "parallax": 0.1, "snow": 0.05, "thing": 0.07}
#: Sparse clips hold one unrelated frame after another: a few, so that drafts can be told.
DENSE_SHARE = 0.85
KL_WEIGHT = 1e-5


@dataclass(frozen=True)
class Phase:
    """Clips of a shape until this share of the stage is over."""

    until: float
    shape: Shape


@dataclass(frozen=True)
class VaeStage:
    """How long, on what, how fast; ``minutes`` are of training in all runs, compiling left out."""

    minutes: float
    phases: tuple[Phase, ...]
    muon_rate: float = 0.02
    rate: float = 2e-3
    warmup_steps: int = 60
    #: Share of the stage at its end in which the rates fall to nothing.
    decay: float = 0.45


def loss_of(vae: Any, clips: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and the mean squared error of each clip (N,)."""
    mean, log_variance = whole_clip.encode(vae, clips)
    latents = mean + torch.exp(log_variance / 2) * noise
    made = whole_clip.decode(vae, latents)
    error = made - clips
    squared = error.square().mean((1, 2, 3, 4))
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    total = 2 * squared.mean() + 0.5 * error.abs().mean() + 0.25 * _gradients(error) + KL_WEIGHT * kl
    return total, squared.detach()


def _gradients(error: torch.Tensor) -> torch.Tensor:
    """Mean absolute differences of neighbours in the error: edges in the wrong place, or too soft."""
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    across = (error[..., 1:] - error[..., :-1]).abs().mean()
    return (down + across) / 2


class VaeTrainer(Trainer):
    """The training state of one process."""

    name = "vae"

    def __init__(
        self,
        stage: VaeStage,
        pictures: Atlas,
        tests: list[HeldOutClip],
        *,
        rank: int,
        world: int,
        seed: int,
        device: str,
        fast: bool,
        make: Callable[[], Any] = new_vae,
    ) -> None:
        self.stage, self.tests = stage, tests
        self.minutes, self.warmup_steps, self.decay = stage.minutes, stage.warmup_steps, stage.decay
        torch.manual_seed(seed)
        vae = make().to(device)
        whole_clip.start_simple(vae)
        if device != "cpu":
            vae = whole_clip.channels_last(vae)
        whole_clip.prepare(vae)
        optimizers = optimizers_of(vae, muon_rate=stage.muon_rate, rate=stage.rate, but=("time_conv",))
        super().__init__(vae, optimizers, rank=rank, world=world)
        self.scenes = Scenes(pictures, torch.Generator(device).manual_seed(seed + 101 * rank + 1))
        self.generator = torch.Generator(device).manual_seed(seed + 31 * rank + 2)
        self._loss = torch.compile(loss_of, dynamic=False) if fast else loss_of

    def shape(self) -> Shape:
        return next(phase.shape for phase in self.stage.phases if self.done < phase.until)

    def learn(self, shape: Shape) -> torch.Tensor:
        """One step; the mean squared error of each clip."""
        shares = SHARES if shape.frames > 1 else {"plain": 1.0}
        clips = self.scenes.make(shape, shares, dense=DENSE_SHARE).frames
        if clips.is_cuda:
            clips = clips.contiguous(memory_format=torch.channels_last_3d)
        config = self.model.config
        latents = (
            shape.batch,
            config.z_dim,
            1 + (shape.frames - 1) // config.scale_factor_temporal,
            shape.height // config.scale_factor_spatial,
            shape.width // config.scale_factor_spatial,
        )
        noise = torch.randn(latents, generator=self.generator, device=self.device)
        with self.autocast():
            loss, squared = self._loss(self.model, clips, noise)
        self.update(loss)
        return squared

    def figures(self, recent: torch.Tensor) -> dict[str, Any]:
        training = float((10 * torch.log10(4 / recent.clamp(min=1e-9))).mean())
        return {"training_db": round(training, 3), **autoencoder_figures(self.model, self.tests)[0]}


@torch.no_grad()
def latent_statistics(
    vae: Any, scenes: Scenes, shape: Shape, *, batches: int = 8
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of every latent channel over training clips."""
    total = torch.zeros(3, vae.config.z_dim, dtype=torch.float64, device=scenes.device)
    for _ in range(batches):
        clips = scenes.make(shape).frames
        with torch.autocast(scenes.device.type, torch.bfloat16, enabled=scenes.device.type == "cuda"):
            latents = whole_clip.encode(vae, clips)[0].double().transpose(0, 1).flatten(1)
        total += torch.stack(
            [torch.full_like(latents[:, 0], latents.shape[1]), latents.sum(1), latents.square().sum(1)]
        )
    mean = total[1] / total[0]
    std = (total[2] / total[0] - mean.square()).clamp(min=1e-8).sqrt()
    return mean.tolist(), std.tolist()
