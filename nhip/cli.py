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
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from nhip import __version__
from nhip.errors import CannotMeasureError, ConfigError, NhipError
from nhip.extras import missing_extra

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
    """Turn an error of ours into one line and exit code 2.

    So does a module that is not installed. A fault of the program prints its trace and also ends with 2:
    Python's own 1 would say "measured".
    """
    try:
        try:
            yield
        except ModuleNotFoundError as error:
            raise missing_extra(error) from error
    except NhipError as error:
        click.echo(f"nhip: {error}", err=True)
        sys.exit(CANNOT)
    except click.ClickException:
        raise
    except Exception:
        traceback.print_exc()
        sys.exit(CANNOT)


# Measuring


@main.command()
@click.argument("kind")
@click.argument("target")
@click.option("--count", type=int, help="How many packets, attempts or transfers.")
@click.option("--interval", type=float, help="Seconds between them.")
@click.option("--size", type=int, help="Octets of payload in each.")
@click.option("--timeout", type=float, help="Seconds after which a packet is lost.")
@click.option("--port", type=click.IntRange(1, 65_535), help="Port of the target, where the kind has one.")
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

    Exit code 0: measured. 1: measured, and no attempt succeeded: the target was silent, refused, or answered
    with an error. 2: this host could not measure.
    """
    import threading

    from nhip import measure as view
    from nhip.clock import SystemClock
    from nhip.config import convert
    from nhip.measurement import Target
    from probes.api import ProbeContext
    from probes.network import HostNetwork
    from probes.registry import PROBES

    options = {
        "--count": ("count", count),
        "--interval": ("interval_seconds", interval),
        "--size": ("size_octets", size),
        "--timeout": ("loss_threshold_seconds", timeout),
    }
    cancelled = threading.Event()
    with _explained():
        probe_type = PROBES.load(kind)
        table = _settings(extra)
        for option, (key, value) in options.items():
            if value is not None:
                if key not in probe_type.Config.__struct_fields__:
                    raise ConfigError(f"nhip measure {kind}: has no {option}", remedy="leave it out")
                table[key] = value
        if port is not None and not probe_type.has_port:
            raise ConfigError(f"nhip measure {kind}: has no --port", remedy="leave it out")
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


@main.command()
@click.option(
    "--config", "path", type=click.Path(path_type=Path), help="See configs/server.toml; defaults without it."
)
def server(path: Path | None) -> None:
    """Run a measurement server: file transfer, STAMP reflector, test zone."""
    from nhip.clock import SystemClock
    from nhip.config import load

    _log_to_stderr()
    with _explained():
        from probes.reflector import Reflector
        from probes.server.dns_responder import DnsResponder
        from probes.server.service import run
        from probes.server_config import MeasurementServerConfig, StampSection

        config = (
            load(path, MeasurementServerConfig)
            if path
            else MeasurementServerConfig(format="nhip-server/1", stamp=StampSection())
        )
        clock = SystemClock()
        beside: list[Any] = []
        if config.stamp is not None:
            stamp = config.stamp
            beside.append(
                Reflector(stamp.host, stamp.port, clock=clock, packets_per_second=stamp.packets_per_second)
            )
        if config.dns is not None:
            beside.append(DnsResponder(config.dns, clock))
        run(config.file_transfer, beside=beside, metrics=config.metrics)


# Keeping and judging


@main.command()
@click.option(
    "--config", "path", type=click.Path(path_type=Path), required=True, help="See configs/collector.toml."
)
def collector(path: Path) -> None:
    """Run the collector: receive, keep, judge, publish."""
    from nhip.config import load

    with _explained():
        from collector.collector_config import CollectorConfig
        from collector.service import run
        from dashboards.web.status import render

        run(load(path, CollectorConfig), render)


@main.group()
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

    with _explained():
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

    with _explained():
        from collector.collector_config import CollectorConfig
        from collector.quarantine import readmit

        found = readmit(load(path, CollectorConfig), probe_id)
        click.echo(f"stored {found.stored}, stored already {found.duplicate}, still refused {found.left}")


@main.command()
def key() -> None:
    """Make a new key: the secret for the probe, its SHA-256 for the collector's list."""
    from collector.keys import new_key

    made = new_key()
    click.echo(f"key        {made.secret}\nkey_sha256 {made.sha256}")


# Forecasting


@main.command()
@click.argument("series", type=click.Path(path_type=Path))
@click.option("--horizon", default="30d", show_default=True, help="48h, 30d or 12w.")
@click.option("--capacity", help="Of the link, such as 10Gbit/s; without it no crossing date is given.")
@click.option("--model", help="seasonal_naive or ets; by default ets by day, seasonal_naive by the hour.")
@click.option(
    "--link-class",
    type=click.Choice(["international", "domestic", "interconnection"]),
    default="domestic",
    show_default=True,
    help="Which capacity rules apply.",
)
@click.option("--lead-time", "lead_time_days", default=90, show_default=True, help="Days to add capacity.")
@click.option("--series-id", help="Only this series of the file.")
@click.option("--unit", help="Unit of the values, where the file does not say it (bit/s, octets, ...).")
@click.option("--statistic", help="daily_mean, daily_p95 or daily_peak: what a daily value is.")
@click.option("--publish", metavar="URL", help="Also hand the result to the collector at URL.")
@click.option("--key-file", type=click.Path(path_type=Path), help="Forecast key for --publish.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def forecast(
    language: Any,
    series: Path,
    horizon: str,
    capacity: str | None,
    model: str | None,
    link_class: Any,
    lead_time_days: int,
    series_id: str | None,
    unit: str | None,
    statistic: str | None,
    publish: str | None,
    key_file: Path | None,
    as_json: bool,
) -> None:
    """Forecast the traffic in SERIES (CSV: timestamp,value[,series_id]) and say when each limit is reached.

    Exit code 1: some series of the file were refused; the table says which and why.
    """
    import datetime

    with _explained():
        from forecasting.capacity_rules import read_capacity_rules, rules_for
        from forecasting.command import forecast_series, parse_horizon
        from forecasting.render import render_table, to_json

        if publish and key_file is None:
            raise ConfigError("--publish needs a key", remedy="name its file with --key-file")
        result = forecast_series(
            series,
            horizon=horizon,
            capacity=capacity,
            # Below a day ETS was measured worse than the naive model on real series.
            model=model or ("ets" if parse_horizon(horizon)[1] else "seasonal_naive"),
            rules=rules_for(read_capacity_rules(), day=datetime.date.today(), link_class=link_class),
            lead_time_days=lead_time_days,
            series_id=series_id,
            unit=unit,
            daily_statistic=statistic,
        )
        if publish and key_file is not None:
            from nhip.publish import publish_forecasts
            from nhip.secret import read_key_file

            publish_forecasts(publish, read_key_file(key_file), [link.as_dict() for link in result.links])
    click.echo(to_json(result) if as_json else render_table(result, language))
    sys.exit(1 if result.refused else 0)


# Dashboards


@main.group()
def dashboards() -> None:
    """Grafana dashboards, generated from the metric catalog."""


@dashboards.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--prometheus", default="http://127.0.0.1:9090", show_default=True, help="Its address.")
def provision(directory: Path, prometheus: str) -> None:
    """Write data source, provider and dashboards for Grafana's file provisioning into DIRECTORY."""
    with _explained():
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

    with _explained():
        from dashboards.grafana.publish import publish as publish_to

        refuse_clear_text(url, "--url")
        for change in publish_to(url, read_key_file(token_file), dry_run=dry_run):
            click.echo("\n  ".join([f"{change.what}: {change.action}", *change.differences]))


# Lab and demo


@main.group()
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

    with _explained():
        click.echo(
            commands.up(name, topology_path=topology, relay=relay, services=services, language=language)
        )


@lab.command()
@click.argument("name", default="lab")
@click.pass_obj
def down(language: Any, name: str) -> None:
    """Take the lab NAME (default: lab) down; leaves nothing, also after a crash."""
    from nhip.lab import commands

    with _explained():
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

    with _explained():
        click.echo(commands.status(name, json=as_json, calibrated=calibrate, language=language))
        sound = commands.open_lab(name).status().phase == "up"
    sys.exit(0 if sound else 1)


@main.command()
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
    with _explained():
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
    with _explained():
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
