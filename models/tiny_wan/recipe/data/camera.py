"""Camera motions: their speeds, the flow they leave in a clip, and the views they take of a picture.

Speeds are in pixels of the frame, whatever its size: a pan moves the same number of pixels a second at
128x128 and at 256x256. A convolutional model sees pixels, not fractions of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

Pace = Literal["slow", "normal", "quick"]
PACES: dict[Pace, float] = {"slow": 0.4, "normal": 1.0, "quick": 2.0}


@dataclass(frozen=True)
class Motion:
    """What the camera does at normal pace, each a second: y points down, roll is clockwise.

    ``right`` and ``down`` in pixels; ``zoom`` the logarithm of the magnification; ``roll`` in radians.
    """

    right: float = 0.0
    down: float = 0.0
    zoom: float = 0.0
    roll: float = 0.0

    def at(self, pace: Pace) -> Motion:
        """This motion at another pace."""
        speed = PACES[pace]
        return Motion(self.right * speed, self.down * speed, self.zoom * speed, self.roll * speed)


MOTIONS: dict[str, Motion] = {
    "left": Motion(right=-16.0),
    "right": Motion(right=16.0),
    "up": Motion(down=-16.0),
    "down": Motion(down=16.0),
    "in": Motion(zoom=0.2),
    "out": Motion(zoom=-0.2),
    "clockwise": Motion(roll=0.25),
    "counterclockwise": Motion(roll=-0.25),
    "still": Motion(),
}


def parameters(motions: list[Motion], device: torch.device | str) -> torch.Tensor:
    """(N, 4): right, down, zoom, roll of each motion."""
    rows = [(m.right, m.down, m.zoom, m.roll) for m in motions]
    return torch.tensor(rows, dtype=torch.float32, device=device)


def view_points(motion: torch.Tensor, times_s: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Where every pixel of every frame looks, in pixels of the frame at time 0.

    Args:
        motion: (N, 4), see ``parameters``.
        times_s: (N, F) seconds since the first frame.
        height, width: Of the frame.

    Returns:
        (N, F, height, width, 2), x then y; the middle of the first frame is (0, 0).
    """
    device = motion.device
    y, x = torch.meshgrid(
        torch.arange(height, device=device) - (height - 1) / 2,
        torch.arange(width, device=device) - (width - 1) / 2,
        indexing="ij",
    )
    right, down, zoom, roll = (motion[:, i, None] * times_s for i in range(4))
    scale = torch.exp(-zoom)
    cos, sin = (scale * torch.cos(roll))[..., None, None], (scale * torch.sin(roll))[..., None, None]
    return torch.stack(
        [
            cos * x - sin * y + right[..., None, None],
            sin * x + cos * y + down[..., None, None],
        ],
        dim=-1,
    )


def film(
    pictures: torch.Tensor, points: torch.Tensor, centre: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Film pictures along camera paths; beyond its edge a picture is mirrored.

    Args:
        pictures: (N, C, H, W) float, 3 channels or as many as there are.
        points: (N, F, h, w, 2) from ``view_points``.
        centre: (N, 2) x, y of the first frame's middle, in pixels of the picture.
        scale: (N,) pixels of the picture to a pixel of the frame.

    Returns:
        (N, F, C, h, w), bilinearly sampled.
    """
    count, frames, height, width, _ = points.shape
    size = torch.tensor([pictures.shape[3], pictures.shape[2]], device=points.device)
    at = points * scale.view(-1, 1, 1, 1, 1) + centre.view(-1, 1, 1, 1, 2)
    grid = ((at + 0.5) / size * 2 - 1).view(count, frames * height, width, 2)
    sampled = torch.nn.functional.grid_sample(
        pictures, grid.to(pictures.dtype), mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return sampled.view(count, pictures.shape[1], frames, height, width).transpose(1, 2)


def stays_in_view(points: torch.Tensor, margin_px: float = 0.0) -> torch.Tensor:
    """(N, F, h, w) bool: the pixels whose content the first frame already shows."""
    half_width, half_height = (points.shape[3] - 1) / 2, (points.shape[2] - 1) / 2
    inside_x = points[..., 0].abs() <= half_width - margin_px
    inside_y = points[..., 1].abs() <= half_height - margin_px
    return inside_x & inside_y
