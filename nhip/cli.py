"""The ``nhip`` command: the one place where probes, collector, forecasting and dashboards meet.

Each command imports its world inside its function, so that ``nhip --help`` costs nothing and a probe host
never loads what only the collector needs.

Exit codes: 0 done, 1 done and the answer is bad (target unreachable, file wrong, demo out of tolerance),
2 could not be done; the message then says what to do.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from nhip import __version__
from nhip.errors import CannotMeasureError, NhipError

CANNOT = 2

F = TypeVar("F", bound=Callable[..., Any])


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="nhip")
@click.option("--lang", "language", type=click.Choice(["vi", "en"]), help="Language of what is printed.")
@click.pass_context
def main(context: click.Context, language: str | None) -> None:
    """Nhịp: measures Internet, 3G, 4G and 5G, keeps what it measured, judges it, forecasts it.

    \b
    Nhịp: đo Internet, 3G, 4G, 5G; lưu, đánh giá và dự báo.
    """
    from nhip.language import Language, preferred

    context.obj = Language(language) if language else preferred()


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn an error of ours into one line and exit code 2."""
    try:
        yield
    except NhipError as error:
        click.echo(f"nhip: {error}", err=True)
        sys.exit(CANNOT)


# Measuring


@main.command()
@click.argument("kind")
@click.argument("target")
@click.option("--count", type=int, help="How many packets, attempts or transfers.")
@click.option("--interval", type=float, help="Seconds between them.")
@click.option("--size", type=int, help="Octets of payload in each.")
@click.option("--timeout", type=float, help="Seconds after which a packet is lost.")
@click.option("--port", type=int, help="Port of the target, where the kind has one.")
@click.option("--interface", help="Send through this interface only.")
@click.option("--source", help="Send from this address.")
@click.option("-4", "ip_version", flag_value=4, type=int, help="IPv4 only.")
@click.option("-6", "ip_version", flag_value=6, type=int, help="IPv6 only.")
@click.option("--set", "extra", multiple=True, metavar="KEY=VALUE", help="Any other setting of the kind.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def measure(
    language: Any,
    kind: str,
    target: str,
    count: int | None,
    interval: float | None,
    size: int | None,
    timeout: float | None,
    port: int | None,
    interface: str | None,
    source: str | None,
    ip_version: int | None,
    extra: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run one test of KIND towards TARGET and print what it found.

    KIND is icmp, stamp, tcp_connect, dns, http or file_transfer; TARGET is a name or an address.

    Exit code 0: measured. 1: measured, and the target did not answer. 2: this host could not measure.
    """
    import threading

    from nhip import measure as view
    from nhip.clock import SystemClock
    from nhip.config import convert
    from nhip.measurement import Target
    from probes.api import ProbeContext
    from probes.network import HostNetwork
    from probes.registry import PROBES

    wanted = {
        "count": count,
        "interval_seconds": interval,
        "size_octets": size,
        "loss_threshold_seconds": timeout,
    }
    cancelled = threading.Event()
    with _explained():
        probe_type = PROBES.load(kind)
        table = {key: value for key, value in wanted.items() if value is not None} | _settings(extra)
        probe = probe_type(convert(table, probe_type.Config, f"nhip measure {kind}", environment={}))
        context = ProbeContext(
            clock=SystemClock(),
            network=HostNetwork(interface=interface, source=source, ip_version=ip_version),
            cancelled=cancelled,
        )
        signal.signal(signal.SIGINT, lambda *_: cancelled.set())
        sample = probe.measure(Target(id="target", host=target, port=port), context)
    if as_json:
        click.echo(_json(view.document(sample)))
    else:
        click.echo(view.table(sample, language))
    sys.exit(view.exit_code(sample))


@main.command()
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

    _log_to_stderr()
    with _explained():
        agent = Agent(load(path, AgentConfig), SystemClock())
        agent.start()
    _on_stop_signals(agent.stop)
    agent.wait(seconds)
    agent.close()


# Files


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def check(files: tuple[Path, ...]) -> None:
    """Hold configuration FILES against their format; says file, key, value and remedy."""
    from nhip import config

    wrong = 0
    for path in files:
        try:
            click.echo(f"{path}: {config.check(path)}")
        except NhipError as error:
            wrong += 1
            click.echo(f"nhip: {error}", err=True)
    sys.exit(1 if wrong else 0)


@main.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def schema(directory: Path) -> None:
    """Write the JSON Schema of every configuration format into DIRECTORY."""
    from nhip import config

    directory.mkdir(parents=True, exist_ok=True)
    for name in config.FORMATS:
        path = directory / f"{name.replace('/', '-')}.json"
        path.write_text(_json(config.json_schema(config.FORMATS.load(name))) + "\n", encoding="utf-8")
        click.echo(str(path))


# Helpers


def _settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    """``KEY=VALUE`` pairs with the value as TOML would read it, else as text."""
    import tomllib

    table: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise CannotMeasureError(f"--set {pair}: has no '='", remedy="write KEY=VALUE")
        try:
            table[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            table[key] = value
    return table


def _json(document: Any) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def _log_to_stderr() -> None:
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )


def _on_stop_signals(stop: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop())


if __name__ == "__main__":
    main()
