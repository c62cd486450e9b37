"""What is installed without the repository: command, pages, model and the door of Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: For the clean environment's Python: a farm of its own, its pages, a video of the model that comes along.
PROGRAM = """
import json, sys, urllib.request
import reelfarm, dashboard, nodes

photo, folder, here = sys.argv[1:]
for room in (reelfarm, dashboard, nodes):
    assert room.__file__.startswith(here), room.__file__
with reelfarm.Farm.start(workers="2GiB", state=f"{folder}/state") as farm:
    health = json.load(urllib.request.urlopen(f"{farm.url}/api/v1/health"))
    assert health == {"status": "ok", "version": reelfarm.__version__}, health
    page = urllib.request.urlopen(f"{farm.url}/login").read()
    script = page.decode().split('type="module" src="')[1].split('"')[0]
    assert b"import" in urllib.request.urlopen(farm.url + script).read()
    asked = {"preview": True, "num_frames": 17, "width": 128, "height": 128}
    job = farm.submit(photo, "zoom in", **asked)
    video = job.wait(f"{folder}/v.mp4")
    assert video.frames().shape == (17, 128, 128, 3)
again = reelfarm.render(photo, "zoom in", state=f"{folder}/state", workers="2GiB", **asked)
assert again.report["totals"]["frames_sha256"] == video.report["totals"]["frames_sha256"]
print("made", video.path)
"""
#: For a type checker.
TYPED = """
from reelfarm import Farm, JobFailed, render

def made(photo: str) -> None:
    try:
        video = render(photo, "zoom in", seconds=2, seed=7)
    except JobFailed as error:
        print(error.message.upper())
    reveal_type(video)
    reveal_type(video.frames())
    Farm().submit(photo, "zoom in", fit="pad").wait("v.mp4")
"""


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.torch
def test_a_wheel_in_a_clean_environment_has_all_that_users_are_told_of(tmp_path: Path) -> None:
    def run(*command: str | Path, folder: Path = tmp_path) -> str:
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "REELFARM"))
        }
        done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    uv = Path(sys.executable).with_name("uv")
    source = tmp_path / "source"
    listed = run("git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(lambda name: (ROOT / name).is_file(), listed.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    run(
        uv,
        "build",
        "--wheel",
        "--no-build-isolation",
        "--python",
        sys.executable,
        "--out-dir",
        tmp_path,
        source,
    )
    (wheel,) = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "clean")
    python = tmp_path / "clean" / "bin" / "python"
    run(uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", python, wheel)
    # The dependencies are this environment's, without what makes the repository importable there.
    (own,) = (tmp_path / "clean").glob("lib/python*/site-packages")
    (own / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    command = tmp_path / "clean" / "bin" / "farm"
    assert run(command, "--version").startswith("farm ")
    assert "tiny_wan" in run(command, "models", "tiny_wan", "--workers", "2GiB")
    photo = ROOT / "examples" / "coffee.jpg"
    assert "video  " in run(command, "plan", photo, "--seconds", "2", "--workers", "2GiB")
    (tmp_path / "typed.py").write_text(TYPED)
    revealed = run(sys.executable, "-m", "mypy", "--python-executable", python, "typed.py")
    assert 'Revealed type is "reelfarm.video.Video"' in revealed
    assert "numpy.ndarray" in revealed
    (tmp_path / "program.py").write_text(PROGRAM)
    assert "made" in run(python, "program.py", photo, tmp_path, own)
