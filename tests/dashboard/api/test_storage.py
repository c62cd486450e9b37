"""What lies in the storage is told by what the journal knows of it, and the unknown goes on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from farm.running.storage import Storage


async def test_every_file_is_told_once_and_the_unknown_goes_on_request(farm: Any, photo: Path) -> None:
    job_id = await farm.finished_job(photo)
    story = farm.state_dir / "jobs" / job_id / "job.jsonl"
    await farm.until(lambda: "job_published" in story.read_text())  # the last that is written of it
    before = (await farm.get("storage")).json()
    assert (before["unknown"]["files"], before["unknown_jobs"], before["missing_files"]) == (0, [], 0)
    storage = Storage(farm.state_dir)
    storage.put(b"of a journal that is lost")
    (storage.job_folder("job-0123456789ab") / "video.mp4").write_bytes(b"a video")
    found = (await farm.get("storage")).json()
    assert found["unknown"] == {"files": 2, "size_bytes": 25 + 7}
    assert found["unknown_jobs"] == ["job-0123456789ab"]
    folders = [farm.state_dir / name for name in ("blobs", "jobs", "trash")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    kinds = [found[kind] for kind in ("used", "published", "unknown", "trash")]
    assert sum(kind["files"] for kind in kinds) == len(files)
    assert sum(kind["size_bytes"] for kind in kinds) == sum(path.stat().st_size for path in files)
    left = await farm.http.delete("/api/v1/storage/unknown")
    assert left.status_code == 200
    assert left.json() | {"free_bytes": 0} == before | {"free_bytes": 0}
    assert (await farm.get(f"jobs/{job_id}/artifacts/video.mp4")).status_code == 200
