"""Clips as long videos are made of: what is known of them is often a frame that was made before.

Such frames have been through the autoencoder, in a window of their own, or in a draft whose frames are far
apart, of which it keeps about half the power of the finest detail; the clip to be made is as sharp as ever,
otherwise detail would go with every window. And some frames are the model's own: what a camera that films one
of them sees is what is to be made.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from models.tiny_wan.recipe import whole_clip
from models.tiny_wan.recipe.asked import KINDS
from models.tiny_wan.recipe.clips import Batch, ClipMaker, latent_mask, random_masks
from models.tiny_wan.recipe.data.camera import film, stays_in_view, view_points
from models.tiny_wan.recipe.scenes import DENSE, Scene, Shape

#: How known frames come, by the share of clips: as filmed, out of a window, or out of a draft.
AS_FILMED, FROM_WINDOW = 0.35, 0.25
#: Frames a second of such drafts, and frames of theirs that are encoded together with the known one.
DRAFT_RATES, DRAFT_FRAMES = (0.5, 0.5, 0.75, 1.0, 2.0), 5
#: Share of clips with at least ``DENSE`` frames a second, by frames of the window: drafts are short.
DENSE_SHARES = {9: 0.35}
OTHERWISE_DENSE = 0.85
#: Of the clips in which the camera alone moves, so many film a frame that the model has made.
OWN_SHARE = 0.35
MOVED_BY_CAMERA = len(KINDS["plain"][0]) + len(KINDS["combined"][0])


@dataclass(frozen=True)
class WornBatch(Batch):
    """Clips with what was asked, as in ``Scene``; ``shown`` (N, 3, F, H, W) has the detail that is wanted,
    what the autoencoder makes of the true clip. ``own`` (N,) is true where a made frame is filmed, and
    ``worn`` (N,) where known frames do not come as they were filmed.
    """

    asked: torch.Tensor
    rate: torch.Tensor
    shown: torch.Tensor
    own: torch.Tensor
    worn: torch.Tensor


class WornClipMaker(ClipMaker):
    """Makes clips whose known frames are worn, or were made."""

    @torch.no_grad()
    def make(
        self, shape: Shape, known: torch.Tensor | None = None, made: torch.Tensor | None = None
    ) -> WornBatch:
        """As ``ClipMaker.make``; some film one of the frames (M, 3, H, W) that were ``made``."""
        scene = self.scenes.make(shape, dense=DENSE_SHARES.get(shape.frames, OTHERWISE_DENSE))
        count, own = shape.batch, torch.zeros(shape.batch, dtype=torch.bool, device=self.device)
        if known is None:
            known = random_masks(count, shape.frames, self.rng)
        known = known.to(self.device, non_blocking=True)
        if made is not None:
            own = (self._rand(count) < OWN_SHARE) & (scene.asked < MOVED_BY_CAMERA)
            scene = self._of_own(scene, made, own)
        latents = self._latents(scene.frames)
        shown = self._decoded(latents)
        motion, rate = self.scenes.motions[scene.asked], self.scenes.rates[scene.rate]
        chance = self._rand(count)
        worn = (chance >= AS_FILMED) | own
        given = _where(own | ~worn, scene.frames, shown)
        ends = self._out_of_a_draft(scene.frames, motion)
        sparse = (chance > AS_FILMED + FROM_WINDOW) & (rate >= DENSE)
        given[:, :, :1] = _where(sparse, ends[0], given[:, :, :1])
        given[:, :, -1:] = _where(sparse, ends[1], given[:, :, -1:])
        condition = self._latents(given * known[:, None, :, None, None])
        mask = latent_mask(known)[..., None, None].expand(-1, -1, -1, *latents.shape[-2:])
        which = torch.randint(
            self.prompts.each, (count,), generator=self.scenes.generator, device=self.device
        )
        ids = self.prompts.table[scene.asked, which, scene.rate]
        half = torch.half if self.device.type == "cuda" else torch.float
        return WornBatch(
            latents,
            condition,
            mask,
            self.prompts.embed(ids),
            self._seen(scene, known),
            scene.frames.to(half),
            scene.asked,
            scene.rate,
            _where(own, scene.frames, shown).to(half),
            own,
            worn,
        )

    def _of_own(self, scene: Scene, made: torch.Tensor, own: torch.Tensor) -> Scene:
        """Where ``own``, a made frame filmed as was asked, mirrored beyond its edges."""
        times = torch.arange(scene.frames.shape[2], device=self.device)[None]
        times = times / self.scenes.rates[scene.rate][:, None]
        height, width = made.shape[-2:]
        points = view_points(self.scenes.motions[scene.asked], times, height, width)
        grid = points.flatten(1, 2) * 2 / torch.tensor([width, height], device=self.device)
        generator = self.scenes.generator
        which = torch.randint(len(made), (len(own),), generator=generator, device=self.device)
        # Bicubic: what is filmed is no sharper than a frame, and is to lose nothing.
        filmed = F.grid_sample(
            made[which], grid, mode="bicubic", padding_mode="reflection", align_corners=False
        )
        frames = filmed.clamp(-1, 1).unflatten(2, (-1, height)).to(scene.frames)
        seen = _where(own, stays_in_view(points).float(), scene.seen)
        return Scene(_where(own, frames, scene.frames), seen, scene.asked, scene.rate)

    def _out_of_a_draft(
        self, frames: torch.Tensor, motion: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The first and the last frame (N, 3, 1, H, W) as drafts have them: encoded with what their camera
        sees long before and long after.
        """
        count, generator = len(frames), self.scenes.generator
        stills = torch.cat([frames[:, :, 0], frames[:, :, -1]])
        rates = torch.tensor(DRAFT_RATES, device=self.device)
        rate = rates[torch.randint(len(rates), (2 * count,), generator=generator, device=self.device)]
        place = torch.randint(1, DRAFT_FRAMES, (2 * count,), generator=generator, device=self.device)
        times = (torch.arange(DRAFT_FRAMES, device=self.device)[None] - place[:, None]) / rate[:, None]
        height, width = stills.shape[-2:]
        points = view_points(motion.repeat(2, 1), times, height, width)
        centre = torch.tensor([(width - 1) / 2, (height - 1) / 2], device=self.device).expand(2 * count, 2)
        draft = film(stills, points, centre, torch.ones(2 * count, device=self.device)).transpose(1, 2)
        drawn = self._decoded(self._latents(draft))
        worn = drawn[torch.arange(2 * count, device=self.device), :, place][:, :, None]
        return worn[:count], worn[count:]

    def _rand(self, count: int) -> torch.Tensor:
        return torch.rand(count, generator=self.scenes.generator, device=self.device)

    def _latents(self, frames: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            return (whole_clip.encode(self.vae, frames)[0] - self.mean) / self.std

    def _decoded(self, latents: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            return whole_clip.decode(self.vae, latents * self.std + self.mean).clamp(-1, 1)


def _where(rows: torch.Tensor, chosen: torch.Tensor, otherwise: torch.Tensor) -> torch.Tensor:
    """The clips of ``chosen`` where ``rows`` (N,) says so."""
    return torch.where(rows.view(-1, *[1] * (chosen.ndim - 1)), chosen, otherwise)
