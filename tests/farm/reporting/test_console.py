"""What a terminal shows is what was meant."""

from __future__ import annotations

import io

from rich.console import Console

from farm.reporting.console import print_rows


def test_brackets_in_a_table_are_text() -> None:
    out = io.StringIO()
    print_rows(("what",), [("[fd00::1]:8470",), ("[red]",)], Console(file=out))
    assert [line.strip() for line in out.getvalue().splitlines()] == ["what", "[fd00::1]:8470", "[red]"]
