"""``farm review`` where no farm is up: what the journal tells, and what to type next."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from farm.capabilities.frame_rule import FrameRule
from farm.cli.main import app
from farm.planning.suggest import plan_over
from farm.state import JobSubmitted, locked, replayed
from tests.farm.conftest import Make

JOB = "job-0123456789ab"


def test_a_job_whose_render_was_killed_before_its_keyframes_were_there_is_gone_on_with_by_retry(
    tmp_path: Path,
) -> None:
    make = Make()
    spec = make.spec(
        takes=frozenset({"image", "last_image", "text"}),
        frames=FrameRule.causal(4, max_frames=33),
        window_frames=17,
        native_fps=8,
        min_fps=0.5,
    )
    request = make.request(mode="infill", num_frames=49, review=True)
    with locked(tmp_path, "a test"), replayed(tmp_path) as ledger:
        ledger.record(JobSubmitted(job_id=JOB, request=request, plan=plan_over(request, spec, [])))
    shown = CliRunner().invoke(app, ["review", JOB, "--state", str(tmp_path), "--pictures", str(tmp_path)])
    assert shown.exception is None, shown.output
    assert f"its keyframes are not all there; `farm retry {JOB}" in shown.output
    as_json = CliRunner().invoke(app, ["review", JOB, "--state", str(tmp_path), "--json"])
    assert "farm retry" not in as_json.output
