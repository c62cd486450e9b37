"""``farm keys``: make, list and revoke the API keys of a farm that is up."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

import typer

from farm.cli.farm_meant import Farm, Json, StateFolder, Token, client_of
from farm.errors import InvalidInput
from farm.reporting import console

keys = typer.Typer(invoke_without_command=True)

_UNITS_S = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0, "y": 365 * 86400.0}


def parse_duration_s(text: str, name: str = "expires") -> float:
    """A time such as ``12h``, ``30d``, ``4w`` or ``1y``, in seconds. ``name``: of what it is for.

    Raises:
        InvalidInput: it is none.
    """
    found = re.fullmatch(r"([0-9]{1,6})([hdwy])", text)
    if found is None or int(found[1]) == 0:
        raise InvalidInput(f"{name} is {text!r}, expected one such as 12h, 30d, 4w or 1y", param=name)
    return int(found[1]) * _UNITS_S[found[2]]


@keys.callback()
def list_keys(
    context: typer.Context,
    farm: Farm = None,
    token: Token = None,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """List the API keys, or make and revoke them."""
    if context.invoked_subcommand is not None:
        # REELFARM_TOKEN is no option that somebody put in the wrong place.
        sources = map(context.get_parameter_source, context.params)
        if any(source is not None and source.name == "COMMANDLINE" for source in sources):
            raise InvalidInput(f"options go behind `farm keys {context.invoked_subcommand}`")
        return
    found = client_of(farm, token, state).keys()
    if as_json:
        console.print_json(found)
        return
    rows = (
        (
            key["id"],
            key["name"],
            ", ".join(key["scopes"]),
            _day(key["created_at"]),
            _day(key["last_used_at"]) or "never",
            f"revoked {_day(key['revoked_at'])}" if key["revoked_at"] else _day(key["expires_at"]) or "never",
        )
        for key in found
    )
    console.print_rows(("key", "name", "scopes", "made", "used", "ends"), rows)


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Whom or what it is for.")],
    scope: Annotated[list[str], typer.Option(help="read, submit, node or admin; can be repeated.")],
    expires: Annotated[str | None, typer.Option(help="Such as 12h, 30d or 1y.", show_default="never")] = None,
    farm: Farm = None,
    token: Token = None,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Make a key; it is printed this once."""
    expires_in_s = None if expires is None else parse_duration_s(expires)
    made: dict[str, Any] = client_of(farm, token, state).create_key(name, scope, expires_in_s)
    if as_json:
        console.print_json(made)
        return
    # A program may read the key alone from standard output.
    console.out.print(made["key"], markup=False, soft_wrap=True)
    ends = f"until {_day(made['expires_at'])}" if made["expires_at"] else "until it is revoked"
    console.err.print(f"key {made['id']} for {made['name']}, {ends}; it is shown this once", markup=False)


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="As `farm keys` shows it.")],
    farm: Farm = None,
    token: Token = None,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """End a key at once, with the sessions that were begun with it."""
    client_of(farm, token, state).revoke_key(key_id)
    console.tell({"id": key_id, "revoked": True}, f"{key_id} is revoked", as_json=as_json)


def _day(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at).isoformat(sep=" ", timespec="minutes")
