"""Commands in what people are told, such as `farm retry job-1`, so that they can be pasted as they stand."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

_COMMAND = re.compile(r"`farm ([a-z-]+)([^`]*)`")
#: Commands that find their farm by ``--farm`` or ``--state``; and those of this machine, by the latter.
_ANYWHERE = frozenset(
    {"cancel", "delete", "drain", "enable", "jobs", "join-token", "keys", "login", "nodes", "priority"}
    | {"report", "review", "rerender", "retry", "storage", "submit", "watch"}
)
_HERE = frozenset(("backup", "leave", "render", "up"))
_GIVEN = re.compile(r"--(farm|state|help)\b")


def pasteable(text: str, farm: str | None, state: Path | None) -> str:
    """``text`` with every command in it told which farm is meant.

    Args:
        text: for people; commands stand in backquotes.
        farm: the address that was given; None: none.
        state: the state folder that is meant; None: the one that commands find by themselves.
    """

    def aimed(found: re.Match[str]) -> str:
        command, rest = found[1], found[2]
        if _GIVEN.search(rest):
            return found[0]
        if farm is not None and command in _ANYWHERE:
            return f"`farm {command}{rest} --farm {shlex.quote(farm)}`"
        if farm is None and state is not None and command in _ANYWHERE | _HERE:
            return f"`farm {command}{rest} --state {shlex.quote(os.path.abspath(state))}`"
        return found[0]

    return _COMMAND.sub(aimed, text)
