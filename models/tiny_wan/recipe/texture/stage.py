"""Stage four: the transformer learns to paint texture where nobody can know what is there.

Learnt by how far it is from the truth, what no known frame shows comes out as the mean of all that might be,
a blur. Here a discriminator (``discriminator``) tells what is made in each of the model's own steps from true
clips as the autoencoder shows them, and only the rough colours of unseen places are still held to the truth.
What known frames show is learnt as before, and is to have as much detail as the true clip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from models.tiny_wan.recipe import whole_clip
from models.tiny_wan.recipe.architecture import SPATIAL, TEMPORAL, new_transformer
from models.tiny_wan.recipe.scenes import DENSE, Shape
from models.tiny_wan.recipe.texture.discriminator import (
    WIDTHS,
    Discriminator,
    Pairs,
    drawn_pairs,
    judging_loss,
    told_apart,
)
from models.tiny_wan.recipe.texture.watched import Watched
from models.tiny_wan.recipe.texture.worn import WornBatch, WornClipMaker
from models.tiny_wan.recipe.transformer import (
    LATENT_FLOOR,
    LATENTS_SHARE,
    PIXEL_FLOOR,
    STEPS,
    HeldOutTests,
    TransformerStage,
    TransformerTrainer,
    clip_errors,
    frame_errors,
)

#: Pixels of one frame that the discriminator looks at in a clip, by the number of its pairs.
PAIRED_PIXELS = 4 * 128 * 128
#: What counts beside the logarithm of the error in view: rough colours elsewhere, by the logarithm too, and
#: the squared logarithm of the ratio of detail.
ROUGH_SHARE, DETAIL_SHARE = 1.0, 0.3
#: How much of the wish for detail holds where frames show what is there that come as they were filmed: to be
#: sharp there costs fidelity.
FILMED_SHARE = 0.25
#: Rough are cells of so many latents a side; errors far below these teach no more, nor does fainter detail.
ROUGH_CELLS, ROUGH_FLOOR, DETAIL_FLOOR = 4, 0.01, 3e-5
#: Made frames that are kept, of each size; how many there are before the first is filmed, and how many steps.
OWN_KEPT, OWN_LEAST, OWN_FROM_STEP = 128, 32, 600
#: The discriminator's say grows to its whole within so many steps.
GROWING_STEPS = 400


@dataclass(frozen=True)
class TextureStage:
    """As ``TransformerStage``; the discriminator moves pixels ``say`` times as hard as their errors do."""

    minutes: float
    shapes: tuple[tuple[Shape, float], ...]
    say: float = 0.7
    muon_rate: float = 0.002
    rate: float = 2e-4
    discriminator_rate: float = 2e-4
    warmup_steps: int = 100
    decay: float = 0.65


class TextureTrainer(TransformerTrainer):
    """The training state of one process."""

    name = "texture"

    def __init__(
        self,
        stage: TextureStage,
        clips: WornClipMaker,
        tests: HeldOutTests,
        watched: Watched,
        *,
        rank: int,
        world: int,
        seed: int,
        make: Callable[[], Any] = new_transformer,
        widths: tuple[int, ...] = WIDTHS,
    ) -> None:
        as_before = TransformerStage(
            stage.minutes,
            stage.shapes,
            from_done=0.0,
            own_from_done=0.0,
            muon_rate=stage.muon_rate,
            rate=stage.rate,
            warmup_steps=stage.warmup_steps,
            decay=stage.decay,
        )
        # Not compiled: there are many shapes, and a shape takes a minute of a stage that is short.
        super().__init__(as_before, clips, tests, rank=rank, world=world, seed=seed, fast=False, make=make)
        self.say, self.watched = stage.say, watched
        self.discriminator = Discriminator(widths).to(clips.device)
        if clips.device.type == "cuda":
            whole_clip.lighten(clips.vae)
            self.discriminator.to(memory_format=torch.channels_last)
        self.judge = torch.optim.Adam(
            self.discriminator.parameters(), stage.discriminator_rate, betas=(0.5, 0.99)
        )
        self.judged = 0
        self.pulls: dict[Shape, torch.Tensor] = {}
        self.made: dict[tuple[int, int], torch.Tensor] = {}
        self.noted: list[torch.Tensor] = []

    def learn(self, shape: Shape) -> torch.Tensor:
        kept = self._kept[shape]
        if not kept:
            made = self.made.get((shape.height, shape.width))
            ready = made is not None and len(made) >= OWN_LEAST and self.judged >= OWN_FROM_STEP
            kept.append(self.clips.make(shape, made=made if ready else None))
            return self._from_own_steps(shape, kept[0])
        return self._from_own_steps(shape, kept.pop())

    def _keep(self, clips: torch.Tensor) -> None:
        """One frame of each finished clip, from its second half, to be filmed."""
        frames = clips.shape[2]
        at = torch.randint(frames // 2, frames, (len(clips),), generator=self.generator, device=clips.device)
        fresh = clips[torch.arange(len(clips), device=clips.device), :, at].clamp(-1, 1)
        size = (clips.shape[3], clips.shape[4])
        self.made[size] = torch.cat([fresh, *([self.made[size]] if size in self.made else [])])[:OWN_KEPT]

    def _step(
        self,
        shape: Shape,
        batch: Any,
        now: torch.Tensor,
        sigma: torch.Tensor,
        last: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss, and the clips it takes ``now`` for, all of them judged as frames."""
        told = torch.cat([batch.mask, batch.condition], 1)
        with self.autocast():
            inside, _, clips = clip_errors(
                self.model, now, batch.latents, told, batch.text, batch.seen, self.channels, sigma
            )
            frames = whole_clip.decode(self.clips.vae, clips * self.clips.std + self.clips.mean)
        drawn = frames.detach().requires_grad_()
        held = held_loss(drawn, batch)
        (pull,) = torch.autograd.grad(held, drawn)
        convincing, push = self._judged(drawn, batch, shape)
        sizes = torch.stack([pull.norm(), push.norm()])
        usual = self.pulls.get(shape, sizes).lerp(sizes, 0.05)
        self.pulls[shape] = usual
        grown = min(1.0, self.judged / GROWING_STEPS)
        weight = self.say * grown * usual[0] / torch.maximum(usual[1], 0.2 * sizes[1]).clamp(1e-12)
        towards = pull + weight * push
        latent = LATENTS_SHARE * torch.log(inside + LATENT_FLOOR).mean()
        self.update(latent + (frames * towards).sum())
        self.noted.append(torch.stack([*convincing, *usual, weight]))
        # A draft's frames are as soft as the autoencoder leaves them, and no example.
        dense = self.clips.scenes.rates[batch.rate] >= DENSE
        self._keep(drawn.detach()[dense & (sigma == self.levels[STEPS - 1])])
        return held.detach(), clips.detach()

    def _judged(
        self, drawn: torch.Tensor, batch: WornBatch, shape: Shape
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """What the discriminator says once it has learnt from these clips; where it would have pixels go."""
        count = max(1, PAIRED_PIXELS // (shape.height * shape.width))
        each = torch.arange(len(drawn), device=drawn.device)
        # Of a made frame there is no true clip: another's stands in for it.
        others = torch.randint(len(drawn), (len(drawn), 8), generator=self.generator, device=drawn.device)
        stand_in = others.gather(1, batch.own[others].int().argmin(1, keepdim=True))[:, 0]
        rows = torch.where(batch.own, stand_in, each)
        drawing = self.generator.get_state()
        pairs = self._pairs(batch, each, count)
        self.generator.set_state(drawing)  # the same frames of both
        true = self._pairs(batch, rows, count).of(batch.shown[rows].float())
        # Not in bfloat16, whose steps are as large as fine texture.
        loss, told = judging_loss(self.discriminator, true, pairs.of(drawn.detach()), self.generator)
        loss.backward()
        self.judge.step()
        self.judge.zero_grad(set_to_none=True)
        self.judged += 1
        self.discriminator.requires_grad_(False)
        with torch.no_grad():
            standard = self.discriminator(true)
        doubted = told_apart(self.discriminator(pairs.of(drawn)), standard)
        (push,) = torch.autograd.grad(doubted, drawn)
        push = push * _wanted(batch, drawn)
        self.discriminator.requires_grad_(True)
        return [loss.detach(), told, doubted.detach()], push

    def _pairs(self, batch: WornBatch, rows: torch.Tensor, count: int) -> Pairs:
        scenes = self.clips.scenes
        frames = torch.arange(batch.frames.shape[2], device=rows.device)
        times = frames[None] / scenes.rates[batch.rate[rows]][:, None]
        return drawn_pairs(scenes.motions[batch.asked[rows]], times, batch.seen[rows], count, self.generator)

    def figures(self, recent: torch.Tensor) -> dict[str, Any]:
        names = ("judging", "told_apart", "doubted", "pull", "push", "weight")
        means = torch.stack(self.noted[-200:]).mean(0).tolist() if self.noted else []
        self.noted = []
        said = {name: float(f"{value:.4g}") for name, value in zip(names, means, strict=False)}
        return {
            "held": round(float(recent.mean()), 4),
            **said,
            **super().figures(recent),
            **self.watched.figures(self.model),
        }

    def state(self) -> dict[str, Any]:
        more = {"discriminator": self.discriminator.state_dict(), "judge": self.judge.state_dict()}
        return {**super().state(), "judged": self.judged, **more}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.judged = int(state.get("judged", 0))
        if "discriminator" in state:
            self.discriminator.load_state_dict(state["discriminator"])
            self.judged = max(self.judged, GROWING_STEPS // 2)  # it has learnt; its optimizer has not
        if "judge" in state:
            self.judge.load_state_dict(state["judge"])


def held_loss(frames: torch.Tensor, batch: WornBatch) -> torch.Tensor:
    """What of made frames (N, 3, F, H, W) is held to the truth, without an opinion of a discriminator."""
    inside, _ = frame_errors(frames, batch.frames, batch.seen)
    each = torch.log(inside + PIXEL_FLOOR)
    each = each + ROUGH_SHARE * torch.log(rough_errors(frames, batch.frames, batch.seen) + ROUGH_FLOOR)
    counts = torch.where(batch.worn, 1.0, FILMED_SHARE)
    return (each + DETAIL_SHARE * detail_errors(frames, batch.shown, batch.seen, counts)).mean()


def _wanted(batch: WornBatch, like: torch.Tensor) -> torch.Tensor:
    """(N, 1, F, H, W): how much of the wish for detail holds in each place."""
    counts = torch.where(batch.worn, 1.0, FILMED_SHARE).view(-1, 1, 1, 1, 1)
    cells = 1 - batch.seen * (1 - counts)
    cells = torch.cat([cells[:, :, :1], cells[:, :, 1:].repeat_interleave(TEMPORAL, 2)], 2)
    return F.interpolate(cells, like.shape[2:], mode="nearest")


def rough_errors(made: torch.Tensor, true: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """(N,) mean squared errors of the means of large cells where no known frame shows what is there."""
    error = F.avg_pool3d((made - true)[:, :, 1:], (TEMPORAL, SPATIAL, SPATIAL)) * (1 - seen[:, :, 1:])
    side = min(ROUGH_CELLS, *error.shape[-2:])
    return F.avg_pool3d(error, (1, side, side)).square().mean((1, 2, 3, 4))


def detail_errors(
    made: torch.Tensor, true: torch.Tensor, seen: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """(N,) squared logarithms of how much more or less detail there is, in three octaves and in the
    Laplacian; of each latent's frames, where known frames show them, by its share of the frame and ``counts``
    (N,). Elsewhere it would be met by any pattern.
    """
    shown = seen[:, 0, 1:]
    share = shown.mean((2, 3))
    total = torch.zeros(len(made), device=made.device)
    mine, theirs = detail_powers(made), detail_powers(true)
    for m, t in zip(mine, theirs, strict=True):
        m, t = ((power * shown).mean((2, 3)) / share.clamp(min=0.02) + DETAIL_FLOOR for power in (m, t))
        total = total + (share * (m / t).log().square()).mean(1) / len(mine)
    return counts * total


def detail_powers(frames: torch.Tensor) -> list[torch.Tensor]:
    """Of each octave, (N, L - 1, h, w): the mean square of what a frame has there, in every latent's cell;
    all frames but the first.
    """
    count = len(frames)
    rest = frames[:, :, 1:].float().transpose(1, 2).flatten(0, 1)
    grey = rest.mean(1, keepdim=True)
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], device=frames.device)[None, None]
    bands = [F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), kernel) / 2]
    for _ in range(3):
        low = F.avg_pool2d(rest, 2)
        bands.append(rest - F.interpolate(low, scale_factor=2, mode="bilinear"))
        rest = low
    powers = []
    for band in bands:
        cell = SPATIAL * band.shape[-1] // frames.shape[-1]
        power = F.avg_pool2d(band.square().mean(1), cell)
        powers.append(power.unflatten(0, (count, -1)).unflatten(1, (-1, TEMPORAL)).mean(2))
    return powers
