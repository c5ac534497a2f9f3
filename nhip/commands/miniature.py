"""``nhip lab`` and ``nhip demo``: a network in miniature, and all of Nhịp in it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from nhip.commands.common import explained


@click.group()
def lab() -> None:
    """A network in miniature whose truth is known (network namespaces; needs root)."""


@lab.command()
@click.argument("name", default="lab")
@click.option("--topology", type=click.Path(path_type=Path), help="TOML file; the default lab without it.")
@click.option("--relay", is_flag=True, help="The loopback variant: no root, fewer effects.")
@click.option("--service", "services", multiple=True, help="Of --relay: a port of the server, udp:8862.")
@click.pass_obj
def up(language: Any, name: str, topology: Path | None, relay: bool, services: tuple[str, ...]) -> None:
    """Build the lab NAME (default: lab) and start its emulator."""
    from nhip.lab import commands

    with explained():
        click.echo(
            commands.up(name, topology_path=topology, relay=relay, services=services, language=language)
        )


@lab.command()
@click.argument("name", default="lab")
@click.pass_obj
def down(language: Any, name: str) -> None:
    """Take the lab NAME (default: lab) down; leaves nothing, also after a crash."""
    from nhip.lab import commands

    with explained():
        click.echo(commands.down(name, language=language))


@lab.command()
@click.argument("name", default="lab")
@click.option("--calibrate", is_flag=True, help="Measure the lab's own error with packets over every link.")
@click.option("--json", "as_json", is_flag=True, help="Print the truth as one JSON document.")
@click.pass_obj
def status(language: Any, name: str, calibrate: bool, as_json: bool) -> None:
    """Say what is there of the lab NAME (default: lab) and what it knows of its links.

    Exit code 1: the lab is there and broken.
    """
    from nhip.lab import commands

    with explained():
        click.echo(commands.status(name, json=as_json, calibrated=calibrate, language=language))
        sound = commands.open_lab(name).status().phase == "up"
    sys.exit(0 if sound else 1)


@click.command()
@click.option("--for", "seconds", type=click.FloatRange(min=30), help="End by itself and judge the result.")
@click.option("--traffic", type=click.Path(path_type=Path), help="CSV with real traffic to forecast.")
@click.option("--capacity", help="Capacity of the links in --traffic.")
@click.option("--port", default=8642, show_default=True, help="Of the page; 0 takes a free one.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep everything in this folder.")
@click.option("--unprivileged", is_flag=True, help="Use the loopback lab even as root.")
@click.pass_obj
def demo(
    language: Any,
    seconds: float | None,
    traffic: Path | None,
    capacity: str | None,
    port: int,
    keep: Path | None,
    unprivileged: bool,
) -> None:
    """Run all of Nhịp in the lab, on real packets, and print where to look.

    With --for it ends by itself, prints what was measured beside the lab's truth, and exits with 1 when a
    figure is outside its tolerance: median delay 0.3 ms or 2 %, loss within its Wilson interval, speed 3 %.
    """
    with explained():
        from nhip.demo.run import Demo, require_everything

        require_everything()
        code = Demo(
            language=language,
            seconds=seconds,
            traffic=traffic,
            capacity=capacity,
            port=port,
            keep=keep,
            unprivileged=unprivileged,
        ).run()
    sys.exit(code)
