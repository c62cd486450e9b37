"""``python -m farm``: the command."""

from __future__ import annotations

import gc

# Nothing that is imported becomes garbage: not to look for it there saves a command a quarter of its time.
gc.disable()
from farm.cli import main  # noqa: E402

gc.freeze()
gc.enable()

if __name__ == "__main__":
    main()
