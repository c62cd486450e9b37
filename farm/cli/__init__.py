"""The command ``farm``: what is typed, checked and answered in a terminal.

Commands and their options enter; this is the only place that may bring all rooms together.
"""

from __future__ import annotations

from farm.cli.main import main

__all__ = [
    "main",
]
