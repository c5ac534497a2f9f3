"""``nhip collector``, ``nhip quarantine`` and ``nhip key``: receive, keep, judge, publish."""

from __future__ import annotations

from pathlib import Path

import click

from nhip.commands.common import explained


@click.command()
@click.option(
    "--config", "path", type=click.Path(path_type=Path), required=True, help="See configs/collector.toml."
)
def collector(path: Path) -> None:
    """Run the collector: receive, keep, judge, publish."""
    from nhip.config import load

    with explained():
        from collector.collector_config import CollectorConfig
        from collector.service import run
        from dashboards.web.status import render

        run(load(path, CollectorConfig), render)


@click.group()
def quarantine() -> None:
    """Records the collector put aside: look at them, take back what is good by now."""


_COLLECTOR_CONFIG = click.option(
    "--config", "path", type=click.Path(path_type=Path), required=True, help="See configs/collector.toml."
)
_OF_PROBE = click.option("--probe", "probe_id", help="Of this probe only.")


@quarantine.command("list")
@_COLLECTOR_CONFIG
@_OF_PROBE
def quarantine_list(path: Path, probe_id: str | None) -> None:
    """One line for each record: when it came, probe, size, why it lies there."""
    import datetime

    from nhip.config import load

    with explained():
        from collector.collector_config import CollectorConfig
        from collector.quarantine import list_quarantine

        for row in list_quarantine(load(path, CollectorConfig), probe_id):
            came = datetime.datetime.fromtimestamp(row.received_wall_ns / 1e9, datetime.UTC)
            click.echo(
                f"{came:%Y-%m-%dT%H:%M:%SZ}  {row.probe_id}  {row.octets} B  {row.reason}: {row.detail}"
            )


@quarantine.command("readmit")
@_COLLECTOR_CONFIG
@_OF_PROBE
def quarantine_readmit(path: Path, probe_id: str | None) -> None:
    """Judge them again by the configuration of now and store what passes; the collector must be stopped."""
    from nhip.config import load

    with explained():
        from collector.collector_config import CollectorConfig
        from collector.quarantine import readmit

        found = readmit(load(path, CollectorConfig), probe_id)
        click.echo(f"stored {found.stored}, stored already {found.duplicate}, still refused {found.left}")


@click.command()
def key() -> None:
    """Make a new key: the secret for the probe, its SHA-256 for the collector's list."""
    from collector.keys import new_key

    made = new_key()
    click.echo(f"key        {made.secret}\nkey_sha256 {made.sha256}")
