"""Jobs as a NiceGUI page, for ``benchmarks/serving/pages.py`` to compare with. Imports none of the farm."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nicegui import ui

COLUMNS = [
    {"name": name, "label": name, "field": name, "align": "left"}
    for name in ("id", "prompt", "status", "progress", "model", "submitted_at")
]
ROWS = json.loads(Path(sys.argv[2]).read_text())


@ui.page("/")
def jobs() -> None:
    ui.label("Jobs")
    ui.table(columns=COLUMNS, rows=ROWS, row_key="id", pagination=50)


ui.run(host="127.0.0.1", port=int(sys.argv[1]), reload=False, show=False)
