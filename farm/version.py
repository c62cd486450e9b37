"""Which Reelfarm this is: the command, the doctor, the pages and the API read it here."""

from __future__ import annotations

from importlib.metadata import version

#: Of the installed distribution, such as ``0.1.0``.
VERSION = version("reelfarm")
