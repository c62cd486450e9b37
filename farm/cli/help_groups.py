"""The order and the groups in which ``farm --help`` shows the commands: the four uses, and the rest."""

from __future__ import annotations

import typer

GROUPS: dict[str, tuple[str, ...]] = {
    "Submit a long video": ("render", "plan", "submit", "review", "retry", "rerender", "models"),
    "Pool several cards": ("up", "join", "join-token", "doctor", "health"),
    "Watch": ("jobs", "watch", "report", "nodes", "login", "priority", "cancel"),
    "Scale up and down": ("drain", "enable", "leave", "remove"),
    "Keep in order": ("storage", "delete", "backup", "restore", "keys", "export-page"),
}


def put_in_groups(app: typer.Typer) -> None:
    """Give every command of ``app`` its place. A group of commands, such as ``keys``, is shown as one."""
    order = [name for names in GROUPS.values() for name in names]
    panels = {name: panel for panel, names in GROUPS.items() for name in names}
    for command in app.registered_commands:
        command.rich_help_panel = panels[_name(command)]
    for group in app.registered_groups:
        group.rich_help_panel = panels[str(group.name)]
    app.registered_commands.sort(key=lambda command: order.index(_name(command)))


def _name(command: typer.models.CommandInfo) -> str:
    return command.name or str(getattr(command.callback, "__name__", ""))
