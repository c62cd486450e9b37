"""Where a video and its sheet go: no file that is there is lost."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from farm.errors import InvalidInput
from farm.outputs import Outputs, choose, outputs, put

CASES = [
    # what is there, the name asked for, --force, the video, the sheet
    ((), None, False, "out.mp4", "out.png"),
    (("out.mp4",), None, False, "out-2.mp4", "out-2.png"),
    (("out.mp4", "out-2.mp4", "out-3.png"), None, False, "out-3.mp4", "out-3-sheet.png"),
    (("out.mp4",), None, True, "out.mp4", "out.png"),
    ((), "a/v.mp4", False, "a/v.mp4", "a/v.png"),
    (("v.png",), "v.mp4", False, "v.mp4", "v-sheet.png"),
    (("v.png", "v-sheet.png"), "v.mp4", False, "v.mp4", "v-sheet-2.png"),
    (("v.mp4", "v.png"), "v.mp4", True, "v.mp4", "v-sheet.png"),
    (("V.png",), "V.MP4", False, "V.MP4", "V-sheet.png"),
]


@pytest.mark.parametrize(("there", "named", "force", "video", "sheet"), CASES)
def test_names_are_chosen_so_that_no_file_is_lost(
    there: tuple[str, ...], named: str | None, force: bool, video: str, sheet: str
) -> None:
    chosen = choose(named and Path(named), force=force, exists=set(map(Path, there)).__contains__)
    assert chosen == Outputs(video=Path(video), sheet=Path(sheet), replaces=force)


@pytest.mark.parametrize("name", ["v", "v.avi", "v.mp4.png", ".mp4"])
def test_an_output_of_another_type_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"expected a name that ends in \.mp4"):
        choose(Path(name), force=True, exists=lambda path: False)


def test_a_video_that_is_there_is_replaced_only_when_that_is_said(tmp_path: Path) -> None:
    video = tmp_path / "v.mp4"
    video.write_bytes(b"hours of work")
    with pytest.raises(InvalidInput, match=r"v\.mp4 exists; choose another name, or replace it with --force"):
        outputs(video)
    assert outputs(video, force=True).as_options == f"-o {video} --force"
    assert video.read_bytes() == b"hours of work"


def test_an_input_is_never_replaced_by_whatever_name_it_was_given(tmp_path: Path) -> None:
    video = tmp_path / "v.mp4"
    video.write_bytes(b"a holiday")
    (tmp_path / "link.mp4").symlink_to(video)
    (tmp_path / "twin.mp4").hardlink_to(video)
    for given in (video, tmp_path / "link.mp4", tmp_path / "twin.mp4", Path(os.path.relpath(video))):
        with pytest.raises(InvalidInput, match=r"v\.mp4 would replace the input of that name"):
            outputs(video, [tmp_path / "missing.png", given], force=True)


def test_a_dangling_link_is_a_name_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="exists"):
        outputs(tmp_path / "v.mp4")


def test_looking_whether_an_output_can_be_written_leaves_no_trace(tmp_path: Path) -> None:
    outputs(tmp_path / "new" / "v.mp4")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_where_the_video_would_go_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").mkdir()
    with pytest.raises(InvalidInput, match=r"v\.mp4 is a folder; give another name"):
        outputs(tmp_path / "v.mp4")


def test_an_output_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"cannot be written .*; choose another place"):
        outputs(tmp_path / "file" / "v.mp4")


def test_a_file_that_came_while_the_video_was_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"somebody else's")
    (tmp_path / ".writing").write_bytes(b"ours")
    assert put(tmp_path / ".writing", tmp_path / "v.mp4") == tmp_path / "v-2.mp4"
    assert (tmp_path / "v.mp4").read_bytes() == b"somebody else's"
    assert (tmp_path / "v-2.mp4").read_bytes() == b"ours"
    (tmp_path / ".writing").write_bytes(b"ours")
    assert put(tmp_path / ".writing", tmp_path / "v.mp4", replace=True) == tmp_path / "v.mp4"
    assert (tmp_path / "v.mp4").read_bytes() == b"ours"


def test_videos_that_are_put_at_one_name_at_once_are_all_kept(tmp_path: Path) -> None:
    def deliver(number: int) -> None:
        whole = tmp_path / f".writing-{number}"
        whole.write_text(str(number))
        put(whole, tmp_path / "v.mp4")

    threads = [threading.Thread(target=deliver, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {path.read_text() for path in tmp_path.glob("v*.mp4")} == set(map(str, range(8)))
