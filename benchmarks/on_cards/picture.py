"""A run as a picture: a row a worker, time from left to right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from farm.reporting import Span

_COLOURS = {
    "working": (52, 120, 190),
    "withdrawn": (170, 120, 110),
    "failed": (190, 40, 40),
    "loading": (240, 160, 40),
    "transfer": (140, 200, 120),
    "starting": (200, 150, 220),
    "dependency": (255, 215, 0),
    "passed over": (230, 120, 160),
    "review": (220, 220, 160),
    "nothing left": (225, 225, 225),
    "publishing": (180, 180, 180),
}
_LEFT, _ROW, _WIDTH, _TOP = 190, 34, 1400, 46


def draw(path: Path, title: str, spans: Mapping[str, Sequence[Span]]) -> None:
    """Write the PNG. ``spans`` as ``worker_spans`` gives them."""
    begin = min(each[0].begin for each in spans.values())
    end = max(each[-1].end for each in spans.values())
    scale = _WIDTH / (end - begin)
    height = _TOP + _ROW * len(spans) + 60
    image = Image.new("RGB", (_LEFT + _WIDTH + 20, height), "white")
    pen = ImageDraw.Draw(image)
    pen.text((10, 8), f"{title}: {end - begin:.1f} s", fill="black")
    for row, (worker_id, own) in enumerate(spans.items()):
        top = _TOP + row * _ROW
        pen.text((10, top + 8), worker_id[-28:], fill="black")
        for span in own:
            left, right = (_LEFT + (moment - begin) * scale for moment in (span.begin, span.end))
            pen.rectangle((left, top, max(left, right - 1), top + _ROW - 6), fill=_COLOURS[span.doing])
            name = span.attempt_id.split("/")[-2] if span.attempt_id else ""
            if span.doing == "working" and right - left > 7 * len(name):
                pen.text((left + 3, top + 8), name, fill="white")
    bottom = _TOP + _ROW * len(spans)
    step = next((s for s in (0.5, 1, 2, 5, 10, 20, 50, 100, 200) if s * scale > 60), 500)
    for tick in range(int((end - begin) / step) + 1):
        x = _LEFT + tick * step * scale
        pen.line((x, _TOP - 6, x, bottom), fill=(120, 120, 120))
        pen.text((x + 2, bottom + 2), f"{tick * step:g} s", fill="black")
    x = 10.0
    for name, colour in _COLOURS.items():
        pen.rectangle((x, bottom + 30, x + 12, bottom + 42), fill=colour)
        pen.text((x + 16, bottom + 30), name, fill="black")
        x += 40 + 6.5 * len(name)
    image.save(path)
