"""``nhip measure`` and ``nhip sweep``: one test, or one look at many targets, now."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nhip.commands.common import explained, json_text
from nhip.errors import CannotMeasureError, ConfigError
from nhip.extras import missing_extra

if TYPE_CHECKING:
    from probes.network import HostNetwork

_NO_FILE = "command line"
_UNKNOWN_KEY = "is no key of this file"
_LINE_OPTIONS = {
    "interface": "--interface",
    "source": "--source",
    "fwmark": "--fwmark",
    "netns": "--netns",
    "iccid": "--iccid",
    "ip_version": "IP version",
}
_SWEEP_OPTIONS = {
    "seconds": "--for",
    "interval_seconds": "--interval",
    "loss_threshold_seconds": "--timeout",
    "size_octets": "--size",
    "dscp": "--dscp",
    "maximum_probes_per_second": "--maximum",
}

F = TypeVar("F", bound=Callable[..., Any])


def _line_options(command: F) -> F:
    """Which line packets leave by; the command gets them as keywords for :func:`_network`."""
    for option in reversed(
        (
            click.option("--interface", help="Send through this interface only."),
            click.option("--source", help="Send from this address."),
            click.option(
                "--fwmark", metavar="MARK", help="Send with this routing mark, 7 or 0x7 (CAP_NET_ADMIN)."
            ),
            click.option("--netns", help="Send inside this network namespace, a name or a path (root)."),
            click.option("--iccid", help="Send by the modem that has this SIM, as ModemManager tells."),
            click.option("-4", "ip_version", flag_value=4, type=int, help="IPv4 only."),
            click.option("-6", "ip_version", flag_value=6, type=int, help="IPv6 only."),
        )
    ):
        command = option(command)
    return command


@click.command()
@click.argument("kind")
@click.argument("target")
@click.option("--count", type=int, help="How many packets, attempts or transfers.")
@click.option("--interval", type=float, help="Seconds between them.")
@click.option("--size", type=int, help="Octets of payload in each.")
@click.option("--timeout", type=float, help="Seconds after which a packet is lost.")
@click.option("--port", type=click.IntRange(1, 65_535), help="Port of the target, where the kind has one.")
@_line_options
@click.option("--set", "extra", multiple=True, metavar="KEY=VALUE", help="Any other setting of the kind.")
@click.option("--services", is_flag=True, help="Also say how ready the line is for ten groups of services.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def measure(
    language: Any,
    /,
    kind: str,
    target: str,
    count: int | None,
    interval: float | None,
    size: int | None,
    timeout: float | None,
    port: int | None,
    extra: tuple[str, ...],
    services: bool,
    as_json: bool,
    **line: Any,
) -> None:
    """Run one test of KIND towards TARGET and print what it found.

    KIND is one of those that `nhip kinds` lists; TARGET is a name or an address.

    Exit code 0: measured. 1: measured, and no attempt succeeded: the target was silent, refused, or answered
    with an error. 2: this host could not measure.
    """
    import gc
    import threading

    from nhip import measure as view
    from nhip import measure_table, readiness_table
    from nhip.clock import SystemClock
    from nhip.config import convert
    from nhip.measurement import Target
    from probes.api import ProbeContext
    from probes.registry import PROBES

    options = {
        "--count": ("count", count),
        "--interval": ("interval_seconds", interval),
        "--size": ("size_octets", size),
        "--timeout": ("loss_threshold_seconds", timeout),
    }
    cancelled = threading.Event()
    gc.disable()  # one test, and the process ends: a collection would only make packets late
    with explained():
        probe_type = PROBES.load(kind)
        table = _settings(extra)
        for option, (key, value) in options.items():
            if value is not None:
                if key not in probe_type.Config.__struct_fields__:
                    raise ConfigError(f"nhip measure {kind}: has no {option}", remedy="leave it out")
                table[key] = value
        if port is not None and not probe_type.has_port:
            raise ConfigError(f"nhip measure {kind}: has no --port", remedy="leave it out")
        given = {key: option for option, (key, value) in options.items() if value is not None}
        with _as_options(f"nhip measure {kind}", given, kind):
            probe = probe_type(convert(table, probe_type.Config, _NO_FILE, environment={}))
        network = _network("nhip measure", line)
        context = ProbeContext(clock=SystemClock(), network=network, cancelled=cancelled)
        signal.signal(signal.SIGINT, lambda *_: cancelled.set())
        sample = probe.measure(Target(id="target", host=target, port=port), context)
    if as_json:
        document = view.document(sample)
        if services:
            document["service_readiness"] = readiness_table.services(sample)
        click.echo(json_text(document))
    else:
        click.echo(measure_table.table(sample, language))
        if services:
            click.echo("\n" + readiness_table.services_table(sample, language))
    sys.exit(view.exit_code(sample))


@click.command()
@click.argument("kind", required=False)
def kinds(kind: str | None) -> None:
    """List the kinds of test, or print the manual page of KIND with all its settings."""
    import inspect

    with explained():
        from probes.registry import PROBES

        if kind is not None:
            click.echo(inspect.cleandoc(sys.modules[PROBES.load(kind).__module__].__doc__ or ""))
            return
        for name in PROBES.names():
            try:
                page = sys.modules[PROBES.load(name).__module__].__doc__ or ""
            except ModuleNotFoundError as error:
                page = str(missing_extra(error))
            click.echo(f"{name:<14} {page.strip().splitlines()[0]}")


@click.command()
@click.argument("targets")
@click.option("--interval", default=1.0, show_default=True, help="Seconds between a target's probes.")
@click.option("--for", "seconds", default=10.0, show_default=True, help="How long to send.")
@click.option("--timeout", default=2.0, show_default=True, help="Seconds after which a probe is lost.")
@click.option("--size", default=56, show_default=True, help="Octets of data behind the ICMP header.")
@click.option("--dscp", default=0, show_default=True, help="DSCP of the probes.")
@click.option("--dont-fragment", is_flag=True, help="Forbid fragments on the way.")
@click.option("--poisson", is_flag=True, help="Random gaps instead of equal ones.")
@click.option("--maximum", type=float, help="Refuse more probes a second; measured by default.")
@click.option("--worst", default=20, show_default=True, help="How many targets to show; 0 for all.")
@_line_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def sweep(
    language: Any,
    /,
    targets: str,
    interval: float,
    seconds: float,
    timeout: float,
    size: int,
    dscp: int,
    dont_fragment: bool,
    poisson: bool,
    maximum: float | None,
    worst: int,
    as_json: bool,
    **line: Any,
) -> None:
    """Probe every target of the file TARGETS at once with ICMP echo, many thousands if need be.

    A line is a host, or: id host. TARGETS may be - for standard input. Exit codes as of measure.
    """
    from nhip.clock import SystemClock
    from nhip.config import convert

    with explained():
        from probes.engine import sweep as view
        from probes.engine.section import SweepSettings

        network = _network("nhip sweep", line)
        settings = {
            "seconds": seconds,
            "interval_seconds": interval,
            "loss_threshold_seconds": timeout,
            "size_octets": size,
            "dscp": dscp,
            "dont_fragment": dont_fragment,
            "poisson": poisson,
            "maximum_probes_per_second": maximum,
        }
        with _as_options("nhip sweep", _SWEEP_OPTIONS):
            checked = convert(settings, SweepSettings, _NO_FILE, environment={})
        result = view.sweep(
            view.targets_of(targets),
            checked,
            SystemClock(),
            network,
            on_start=view.stop_on_interrupt,
        )
    if as_json:
        click.echo(json_text(view.document(result)))
    else:
        click.echo(view.table(result, language, worst=worst))
    sys.exit(result.exit_code)


def _network(command: str, line: Mapping[str, Any]) -> HostNetwork:
    """The network that the options of :func:`_line_options` describe; ConfigError names the wrong one."""
    from nhip.config import convert
    from probes.line.config import LineSection
    from probes.line.modem import ModemManager

    table = {**line, "fwmark": _number(line["fwmark"], "--fwmark")}
    with _as_options(command, _LINE_OPTIONS):
        section = convert(table, LineSection, _NO_FILE, environment={})
        section.check(f"{_NO_FILE}:")
    return section.network(ModemManager())


@contextlib.contextmanager
def _as_options(command: str, options: Mapping[str, str], kind: str = "") -> Iterator[None]:
    """Have an error about a key say the option it came from, or the setting of the kind; here is no file."""
    try:
        yield
    except ConfigError as error:
        key, _, finding = error.what.removeprefix(f"{_NO_FILE}:").partition(": ")
        value, _, reason = finding.rpartition(": ")
        remedy = error.remedy
        if finding == _UNKNOWN_KEY:
            reason = f"no setting of {kind}"
            hint = f"{remedy} " if remedy.startswith("did you mean") else ""
            remedy = f"{hint}see: nhip kinds {kind}"
        if key in options:
            said = f"{options[key]} {value}".rstrip()
        else:
            said = f"--set {key}={value}" if value else f"--set {key}"
        raise ConfigError(f"{command}: {said}: {reason}", remedy=remedy) from error


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


def _number(text: str | None, option: str) -> int | None:
    """A whole number as people write marks: 7 or 0x7."""
    if text is None:
        return None
    try:
        return int(text, 0)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no number", param_hint=option) from error
