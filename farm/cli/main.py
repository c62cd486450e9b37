"""The ``farm`` command, which brings all rooms together."""

from __future__ import annotations

import io
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from farm.cli.farm_meant import Json, Pages, StateFolder
from farm.cli.help_groups import put_in_groups
from farm.cli.key_commands import keys
from farm.cli.machine_commands import VramLimit, head_workers, machine
from farm.cli.page_commands import pages
from farm.cli.remote_commands import remote
from farm.cli.storage_commands import Adopt, Ignore, keeping, settled
from farm.cli.video_commands import run, video
from farm.errors import CannotRun, FarmError, PortClosed
from farm.machines import ClusterFile, check_listen, parse_ports, read_cluster_file
from farm.reporting import LogFormat, console, logging_to
from farm.version import VERSION

app = typer.Typer(
    name="farm",
    help="A render farm for AI video: one long video, made by many small unequal cards.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        console.out.print(f"farm {VERSION}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """What goes before a command."""


@app.command()
def up(
    listen: Annotated[
        str | None, typer.Option(help="Address for other machines.", show_default="127.0.0.1: none")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Of the API.", show_default="8470")] = None,
    ports: Annotated[
        str | None,
        typer.Option(help="TCP ports for other machines, such as 8471-8599.", show_default="8471-8599"),
    ] = None,
    workers: Annotated[
        str | None, typer.Option(help="auto, none, or such as 12GiB,8GiB.", show_default="auto")
    ] = None,
    vram_limit: VramLimit = None,
    cluster: Annotated[
        Path | None, typer.Option(help="A cluster.yaml that says it all.", show_default="none")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What to call this machine.", show_default="its host name")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A name browsers may use for this farm, such as a proxy's.", show_default="its own names"
        ),
    ] = None,
    pages: Pages = None,
    node_key: Annotated[
        Path | None,
        typer.Option(
            help="Keep a key for nodes in this file: whoever reads it may `farm join --token-file`.",
            show_default="none",
        ),
    ] = None,
    log_format: Annotated[
        LogFormat, typer.Option(help="Of standard error: warnings as text, or everything as JSON lines.")
    ] = "text",
    state: StateFolder = None,
    adopt: Adopt = False,
    ignore: Ignore = False,
    as_json: Json = False,
) -> None:
    """Keep a farm running. Ctrl-C ends it; its jobs go on at the next `farm up`."""
    from dashboard.app import create_app
    from dashboard.server import serve
    from nodes.hosting import keep_up

    described = read_cluster_file(cluster) if cluster else ClusterFile()
    budgets = workers.split(",") if workers not in (None, "auto", "none") else workers
    named = {"listen": listen, "port": port, "ports": ports, "pages": pages}
    chosen = {**named, "workers": budgets, "vram_limit": vram_limit}
    given = {key: value for key, value in chosen.items() if value is not None}
    if allow_host:
        given["allowed_hosts"] = allow_host
    described = described.model_copy(update={"head": described.head.model_copy(update=given)})
    here = head_workers(described.head, name)
    check_listen(described.head.listen, described.head.port)
    parse_ports(described.head.ports)
    folder = settled(state, adopt, ignore)
    with suppress(KeyboardInterrupt), logging_to(folder, log_format):  # the way a farm is meant to end
        run(keep_up(described, here, folder, create_app, serve, node_key=node_key, as_json=as_json))


def main() -> None:
    """Entry point: every error a user can meet is one line, and never a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files are bytes, not always text
    try:
        # typer hands the status of an early exit back instead of leaving with it.
        sys.exit(app(standalone_mode=False))
    except FarmError as error:
        console.print_error(error.message)
        for line in error.commands if isinstance(error, PortClosed) else ():
            console.err.print(f"  {line}", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except PermissionError as error:  # of a folder that this user may not even look into
        console.print_error(
            f"{error.filename} is not this user's to use ({error.strerror}); let the user in, or choose "
            "another folder, for the state with --state"
        )
        sys.exit(CannotRun.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        if wrong := error.format_message():  # empty where a bare command showed its help
            place = getattr(error, "ctx", None)
            command = place.command_path if place else "farm"
            console.print_error(f"{wrong.rstrip('.')} (`{command} --help` shows how)")
        sys.exit(2)


for group in (video, remote, machine, keeping, pages):
    app.registered_commands.extend(group.registered_commands)
app.add_typer(keys, name="keys")
put_in_groups(app)
