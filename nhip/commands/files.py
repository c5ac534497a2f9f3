"""``nhip check`` and ``nhip schema``: configuration files and their forms."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from nhip.commands.common import explained, json_text
from nhip.errors import NhipError


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def check(files: tuple[Path, ...]) -> None:
    """Hold configuration FILES against their format; says file, key, value and remedy.

    What this host lacks to carry a file out is only a warning: it may be meant for another one.
    """
    from nhip import config

    wrong = 0
    for path in files:
        try:
            name, found = config.read(path)
            click.echo(f"{path}: {name}")
            for lack in getattr(found, "lacks", tuple)():
                click.echo(f"nhip: warning: {path}:{lack} (on this host)", err=True)
        except NhipError as error:
            wrong += 1
            click.echo(f"nhip: {error}", err=True)
    sys.exit(1 if wrong else 0)


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def schema(directory: Path) -> None:
    """Write the JSON Schema of every configuration format into DIRECTORY."""
    from nhip import config

    directory.mkdir(parents=True, exist_ok=True)
    with explained():
        for name in config.FORMATS:
            path = directory / f"{name.replace('/', '-')}.json"
            path.write_text(json_text(config.json_schema(config.FORMATS.load(name))) + "\n", encoding="utf-8")
            click.echo(str(path))
