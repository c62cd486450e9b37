"""A model whose licence restricts its use is had once that is accepted, for good and for all under it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from farm.capabilities import OWN_WEIGHTS
from farm.errors import LicenceNotAccepted, NotFound
from farm.state import past
from nodes.engines import spec_of
from nodes.hosting.licences import accept_licence, check_licences, licensed

MODEL, NAME = "ltx-video-0.9.8-13b-distilled", "LTX Video Open Weights License"


def test_until_it_is_accepted_nothing_is_read_or_fetched() -> None:
    asked: list[str] = []

    def read(model: str, weights: Any) -> Any:
        asked.append(model)
        return spec_of("procedural").model_copy(update={"model": model})

    accepted: set[str] = set()
    specs = licensed(read, lambda: accepted)
    for model in (MODEL, "Lightricks/LTX-Video-0.9.8-13B-distilled", f"{MODEL}@{'0' * 40}"):
        with pytest.raises(LicenceNotAccepted) as refused:
            specs(model, OWN_WEIGHTS)
        assert refused.value.message == (
            f"{model} is under the {NAME}, which restricts its use: read it at "
            "https://huggingface.co/Lightricks/LTX-Video-0.9.8-13B-distilled, and accept it once for this "
            f"farm with `farm models accept {model}`"
        )
    assert asked == []
    assert specs("wan2.2-ti2v-5b", OWN_WEIGHTS).model == "wan2.2-ti2v-5b"
    accepted.add(NAME)
    assert specs(MODEL, OWN_WEIGHTS).model == MODEL


def test_a_state_folder_remembers_what_was_accepted(tmp_path: Path) -> None:
    with pytest.raises(LicenceNotAccepted):
        check_licences({"model": MODEL}, tmp_path)
    with pytest.raises(LicenceNotAccepted, match=r"^draft model: ") as refused:
        check_licences({"model": "tiny_wan", "draft_model": MODEL}, tmp_path)
    assert refused.value.param == "draft_model"
    assert accept_licence(MODEL, tmp_path) == NAME
    check_licences({"model": "tiny_wan", "draft_model": MODEL}, tmp_path)
    with past(tmp_path) as ledger:
        assert ledger.state.accepted_licences == {NAME}
    for model in ("wan2.2-ti2v-5b", "tiny_wan", str(tmp_path)):
        check_licences({"model": model}, tmp_path)


def test_accepting_says_the_same_as_a_farm_that_is_up(tmp_path: Path) -> None:
    assert accept_licence("tiny_wan", tmp_path) == "Apache License 2.0", "nothing has to be remembered"
    assert list(tmp_path.iterdir()) == []
    for unknown in ("no-such-model", str(tmp_path)):
        with pytest.raises(NotFound, match=rf"^model {re.escape(unknown)} is none of .*tiny_wan"):
            accept_licence(unknown, tmp_path)
    repository = "Lightricks/LTX-Video-0.9.8-13B-distilled"
    assert (
        accept_licence(f"{repository}@{'0' * 40}", tmp_path) == accept_licence(repository, tmp_path) == NAME
    )
