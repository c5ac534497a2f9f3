"""``nhip dashboards``: Grafana dashboards, as files or on a server."""

from __future__ import annotations

from pathlib import Path

import click

from nhip.commands.common import explained


@click.group()
def dashboards() -> None:
    """Grafana dashboards, generated from the metric catalog."""


@dashboards.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--prometheus", default="http://127.0.0.1:9090", show_default=True, help="Its address.")
def provision(directory: Path, prometheus: str) -> None:
    """Write data source, provider and dashboards for Grafana's file provisioning into DIRECTORY."""
    with explained():
        from dashboards.grafana.provision import write

        for path in write(directory, prometheus_url=prometheus):
            click.echo(str(path))


@dashboards.command()
@click.option("--url", required=True, help="Of the Grafana server.")
@click.option("--token-file", type=click.Path(path_type=Path), required=True, help="Service account token.")
@click.option("--dry-run", is_flag=True, help="Say what would change and write nothing.")
def publish(url: str, token_file: Path, dry_run: bool) -> None:
    """Ensure the folder and dashboards on a Grafana server; a second run writes nothing."""
    from nhip.secret import read_key_file, refuse_clear_text

    with explained():
        from dashboards.grafana.publish import publish as publish_to

        refuse_clear_text(url, "--url")
        for change in publish_to(url, read_key_file(token_file), dry_run=dry_run):
            click.echo("\n  ".join([f"{change.what}: {change.action}", *change.differences]))
