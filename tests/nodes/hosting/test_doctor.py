from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from farm.capabilities.worker import GIB, Worker
from nodes.hosting.doctor import ROOMS, Finding, examine, foreign_packages, model_store, python_version


def worker(vram_bytes: int) -> Worker:
    return Worker(id="here/cpu0", node="here", kind="cpu", device_name="CPU", vram_bytes=vram_bytes)


def by_subject(findings: list[Finding]) -> dict[str, Finding]:
    assert len({finding.subject for finding in findings}) == len(findings)
    return {finding.subject: finding for finding in findings}


def install(folder: Path, distribution: str, package: str) -> None:
    """What pip leaves of a distribution with one package."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text("")
    information = folder / f"{distribution}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (information / "RECORD").write_text(f"{package}/__init__.py,,\n{distribution}-1.0.dist-info/METADATA,,\n")


@pytest.mark.torch
def test_a_sound_machine_has_nothing_to_complain_of(tmp_path: Path) -> None:
    findings = by_subject(examine([worker(GIB)], tmp_path))
    assert {f"package {room}" for room in ROOMS} < set(findings)
    assert {"python", "ray", "torch", "diffusers", "opencv-python-headless", "av", "disk"} < set(findings)
    assert [finding for finding in findings.values() if not finding.ok and finding.subject != "disk"] == []
    assert findings["python"].text.startswith("{}.{}.{}, ".format(*sys.version_info))
    assert findings["here/cpu0"].text == "CPU, 1.00 GiB: renders 512x512x8 of procedural at resident"


@pytest.mark.parametrize(
    ("version", "ok"),
    [((3, 10, 14), False), ((3, 11, 0), True), ((3, 12, 3), True), ((3, 13, 9), True), ((3, 14, 0), False)],
)
def test_pythons_3_11_to_3_13_are_sound(version: tuple[int, int, int], ok: bool) -> None:
    found = python_version(*version)
    assert found.ok is ok
    assert found.text.startswith(".".join(map(str, version)))


@pytest.mark.torch
def test_an_installed_distribution_that_owns_one_of_our_packages_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "ipynodes", "nodes")
    monkeypatch.syspath_prepend(str(tmp_path))
    findings = by_subject(examine([worker(GIB)], tmp_path))
    assert findings["package nodes"] == Finding(
        subject="package nodes",
        ok=False,
        text="belongs to ipynodes too; remove it: pip uninstall ipynodes",
    )
    assert findings["package farm"].ok


def test_all_foreign_owners_are_named_and_our_own_is_not() -> None:
    owners = {"farm": ["reelfarm", "farmer", "Reelfarm", "agri"], "stitching": ["reelfarm"]}
    findings = by_subject(foreign_packages(owners))
    assert findings["package farm"].text.endswith("pip uninstall agri farmer")
    assert findings["package stitching"].ok
    assert findings["package dashboard"].ok


@pytest.mark.torch
def test_a_worker_that_holds_no_window_is_a_problem(tmp_path: Path) -> None:
    found = by_subject(examine([worker(10 << 20)], tmp_path))["here/cpu0"]
    assert not found.ok
    assert found.text == "CPU, 0.01 GiB: holds no window of any model"


@pytest.mark.torch
def test_a_state_folder_that_cannot_be_used_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    found = by_subject(examine([], tmp_path / ("long" * 100)))
    for subject in ("disk", "models"):
        assert not found[subject].ok
        assert "cannot be used (File name too long); choose another with --state" in found[subject].text


@pytest.mark.torch
def test_the_disk_of_a_state_folder_that_is_still_to_be_made_is_told(tmp_path: Path) -> None:
    found = by_subject(examine([], tmp_path / "not" / "yet"))["disk"]
    assert found.text.endswith(f" GB free in {tmp_path}")
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize(
    ("quota", "ok", "says"),
    [
        (None, True, "1 kept in .*, 0.0 GB; no quota"),
        ("1GB", True, "of a quota of 1.0 GB"),
        ("10B", False, "of a quota of 0.0 GB"),
        ("much", False, "REELFARM_MODELS_QUOTA is 'much', expected an amount"),
    ],
)
def test_what_models_take_of_the_disk_is_told_beside_what_they_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str | None, ok: bool, says: str
) -> None:
    monkeypatch.setenv("REELFARM_MODELS", str(tmp_path))
    monkeypatch.delenv("REELFARM_MODELS_QUOTA", raising=False)
    if quota is not None:
        monkeypatch.setenv("REELFARM_MODELS_QUOTA", quota)
    (tmp_path / "my-style").mkdir()
    (tmp_path / "my-style" / "w.safetensors").write_bytes(bytes(100))
    found = model_store()
    assert found.ok == ok
    assert re.search(says, found.text)
