"""The page that makes a video in the browser: its model is built, and it is written as plain files."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from farm.cli.farm_meant import Json, StateFolder
from farm.errors import CannotRun, InvalidInput
from farm.reporting import console
from farm.state import default_state_folder

pages = typer.Typer()


@pages.command("export-page")
def export_page(
    folder: Annotated[
        Path | None,
        typer.Argument(help="For any web server of files; without it, this farm's own /try is made ready."),
    ] = None,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Write the page that makes a video in the visitor's browser, without a farm."""
    from dashboard.pages import TRY_FOLDER, write_page

    if folder is not None and folder.exists() and not _is_ours(folder):
        raise InvalidInput(f"{folder} holds other things; name a folder that is not there", param="folder")
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise CannotRun(f"{' and '.join(missing)} are missing: pip install 'reelfarm[browser]'")
    from models.tiny_wan.recipe.browser.export import MODEL, export

    built = (state or default_state_folder()) / TRY_FOLDER
    export(MODEL, built, say=lambda words: None if as_json else console.say(words))
    if folder is None:
        words = "the page is ready at /try of this farm"
    else:
        write_page(built, folder)
        look = f"python3 -m http.server --directory {folder}"
        words = f"the page is in {folder}: put it on any web server, or look at it here:\n  {look}"
    console.tell({"folder": str(folder or built)}, words, as_json=as_json)


def _is_ours(folder: Path) -> bool:
    """Whether a page was written there before, or nothing."""
    if not folder.is_dir():
        return False
    return (folder / "files" / "manifest.json").is_file() or not any(folder.iterdir())
