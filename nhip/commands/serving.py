"""``nhip probe`` and ``nhip server``: what runs on a measuring host and at its far end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nhip.commands.common import explained, log_to_stderr, on_stop_signals


@click.command()
@click.option(
    "--config", "path", type=click.Path(path_type=Path), required=True, help="See configs/probe.toml."
)
@click.option("--for", "seconds", type=float, help="Stop by itself after so many seconds.")
def probe(path: Path, seconds: float | None) -> None:
    """Run the probe agent: measure on schedule, spool, deliver."""
    from nhip.clock import SystemClock
    from nhip.config import load
    from probes.agent import Agent
    from probes.agent_config import AgentConfig

    log_to_stderr()
    with explained():
        agent = Agent(load(path, AgentConfig), SystemClock())
        agent.start()
    on_stop_signals(agent.stop)
    agent.wait(seconds)
    agent.close()


@click.command()
@click.option(
    "--config", "path", type=click.Path(path_type=Path), help="See configs/server.toml; defaults without it."
)
def server(path: Path | None) -> None:
    """Run a measurement server: file transfer, STAMP reflector, test zone."""
    from nhip.clock import SystemClock
    from nhip.config import load

    log_to_stderr()
    with explained():
        from probes.reflector import Reflector
        from probes.reflector.settings import StampSection
        from probes.server.dns_responder import DnsResponder
        from probes.server.service import run
        from probes.server_config import MeasurementServerConfig

        config = (
            load(path, MeasurementServerConfig)
            if path
            else MeasurementServerConfig(format="nhip-server/1", stamp=StampSection())
        )
        clock = SystemClock()
        beside: list[Any] = []
        if config.stamp is not None:
            beside.append(Reflector.of(config.stamp, clock))
        if config.dns is not None:
            beside.append(DnsResponder(config.dns, clock))
        run(config.file_transfer, beside=beside, metrics=config.metrics)
