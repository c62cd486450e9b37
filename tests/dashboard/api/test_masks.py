"""A mask and references go with a job by the API, and are refused by name."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any


def url(content: bytes) -> str:
    return f"data:application/octet-stream;base64,{base64.b64encode(content).decode()}"


async def test_files_beside_the_inputs_are_taken_in_and_a_model_without_them_says_so(
    farm: Any, photo: Path
) -> None:
    sent = await farm.http.post("/api/v1/uploads", files={"file": ("photo.png", photo.read_bytes())})
    body = {"inputs": [sent.json()["id"]], "model": "procedural", "num_frames": 8}
    for more, param, said in (
        ({"references": [url(photo.read_bytes()), sent.json()["id"]]}, "references", "takes none"),
        ({"mask": sent.json()["id"]}, "mask", "no video"),
        ({"references": [url(b"no picture")]}, "references", "reference-1"),
        ({"references": [sent.json()["id"]] * 5}, "references", "at most 4"),
    ):
        answer = await farm.http.post("/api/v1/plans", json=body | more)
        assert answer.status_code in (400, 422), answer.text
        assert answer.json()["error"]["param"] == param
        assert said in answer.json()["error"]["message"]
