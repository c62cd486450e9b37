"""The page that makes a video in the browser, as plain files for any web server: no farm stands behind it."""

from __future__ import annotations

import shutil
from pathlib import Path

from dashboard.http import ISOLATED
from dashboard.pages.routes import RUNTIME, TEMPLATES, TRY, modules, static_files
from farm.version import VERSION

#: Under the state folder: the model that browsers compute with, as it was built for this farm's own page.
TRY_FOLDER = "try"
#: What no module imports by its name: workers, what they choose, styles, licences of what is not ours.
_BESIDE = ("css/", "js/try/", "js/theme.js", "vendor/", "favicon.svg", "sample.jpg")
#: Directives that a page cannot give itself, and servers may.
_SERVERS_OWN = "frame-ancestors"
_README = """\
This folder is a web page: put it on any server of files. Whoever makes a first video fetches {size:.0f} MB.

Its server may send two headers with every file, and the page then computes on several threads instead of one:

    Cross-Origin-Opener-Policy: same-origin
    Cross-Origin-Embedder-Policy: require-corp

(`_headers` says so to the hosts that read such a file.) Browsers give threads, and keep what they
fetched, only over HTTPS or from localhost. To look at it here: python3 -m http.server, then http://localhost:8000
"""


def write_page(built: Path, folder: Path) -> None:
    """Write the page into a folder, which is made; what lies there by the same names is replaced.

    Args:
        built: The folder of the model, its ``manifest.json`` in it.
        folder: What a web server is to show.
    """
    for name in _needed():
        to = folder / "static" / name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(STATIC / name, to)
    files = folder / "files"
    if files.exists():
        shutil.rmtree(files)
    shutil.copytree(built, files)
    for path in RUNTIME.iterdir():
        shutil.copyfile(path, files / path.name)
    policy = "; ".join(
        part for part in ISOLATED["content-security-policy"].split("; ") if not part.startswith(_SERVERS_OWN)
    )
    page = TEMPLATES.get_template("try_alone.html").render(
        page=TRY,
        policy=policy,
        farm_version=VERSION,
        static="static",
        modules=_modules(),
        first_reads=[],
    )
    (folder / "index.html").write_text(page)
    isolation = [f"  {name}: {value}" for name, value in ISOLATED.items() if name.startswith("cross-origin")]
    (folder / "_headers").write_text("\n".join(["/*", *isolation]) + "\n")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and "gpu" not in path.name)
    (folder / "README.txt").write_text(_README.format(size=size / 1e6))


STATIC = RUNTIME.parent / "static"


def _modules() -> list[str]:
    return modules(static_files(), f"js/pages/{TRY.name}.js")


def _needed() -> list[str]:
    """Names under ``static/``: what the page loads, and the licences of others' work."""
    every = (path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.is_file())
    return sorted({*_modules(), *(name for name in every if name.startswith(_BESIDE))})
