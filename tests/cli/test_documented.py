"""The page about the command line names every command, and no other."""

import re
from collections.abc import Iterator

import click

from service.cli import cli
from tests.support.process import ROOT


def found(group: click.Group) -> list[tuple[str, click.Command]]:
    """All of them; those that are loaded when they are asked for, too."""
    names = group.list_commands(click.Context(group))
    return [(name, group.commands[name]) for name in names]


def commands(group: click.Group, path: str) -> Iterator[str]:
    for name, command in found(group):
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}"


def test_every_command_is_explained_and_none_that_is_not() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    assert sorted(re.findall(r"^\| `(taskhook [a-z -]+)` \| \S", page, re.M)) == sorted(commands(cli, "taskhook"))


def test_every_option_has_a_help_text_or_a_name_that_says_it() -> None:
    plain = {"status", "provider", "model", "limit", "form", "kind", "scopes"}
    for name, command in found(cli):
        for option in command.params:
            if isinstance(option, click.Option) and option.name not in plain:
                assert option.help, f"{name} {option.opts}"
