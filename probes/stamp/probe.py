"""STAMP: delay and loss towards a STAMP or TWAMP Light reflector, by direction where it can tell.

The reflector's own holding time is taken out: delay = (T4 − T1) − (T3 − T2), with T1 and T4 as this host's
kernel stamped them. A reflector writes T3 before its packet leaves; one that knows Follow-Up Telemetry says
in its next answer when that really was, and the delay is corrected by it. Times of a reflector that cannot be
give no delay, and a reflector that tells no holding time leaves it in: the sample says so.

Loss is told apart by direction when the reflector numbers its answers itself (stateful): what it never
numbered was lost on the way up, what it numbered and we never saw on the way down. One-way delays are
published only when both clocks say during the whole test that they are set and how wrong they may be, and
always with an error that bounds all of it; the way down only where follow-ups tell how late answers left.

Settings: ``count``, ``interval_seconds``, ``spacing`` (``periodic`` or ``poisson``), ``dscp``,
``loss_threshold_seconds``, and

- ``mode``: ``unauthenticated`` (RFC 8762), ``authenticated`` (with the key in ``key_file``; an answer that is
  not signed with it is ignored) or ``twamp_light`` (RFC 5357; for reflectors that know no STAMP);
- ``size_octets`` of the UDP payload, filled up with padding; as small as the rest allows when left out;
- ``follow_up``: ask when answers really leave; on unless ``size_octets`` leaves no room for it;
- ``location``: ask which addresses and ports the reflector sees, which shows a NAT;
- ``class_of_service``: ask for answers marked with ``dscp`` too, and with which mark requests arrive;
- ``timestamp_information``: ask what sets the reflector's clock and how it stamps;
- ``direct_measurement``: tell our count of packets and ask for the reflector's;
- ``reflector``: ``any`` finds out whether it numbers its answers itself; ``stateful`` takes that for granted,
  so that loss has a direction even when nothing proved it; ``stateless`` gives loss no direction.

The target's port is 862 unless given. Example::

    nhip measure stamp server.example.vn --count 100 --interval 0.1 --set location=true
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec

from nhip.clock import clock_state
from nhip.errors import ConfigError
from nhip.measurement import Method, Sample, Target, TypeP
from probes.api import ProbeContext
from probes.echo import EchoProtocol
from probes.echo_stream import EchoConfig, measure_echo
from probes.network import Address, Network
from probes.packets import stamp
from probes.stamp.key import read_stamp_key
from probes.stamp.plan import Mode, Plan, planned
from probes.stamp.session import StampSession


class StampConfig(EchoConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Knobs of a stamp test."""

    mode: Mode = Mode.UNAUTHENTICATED
    key_file: str | None = None
    size_octets: Annotated[int, msgspec.Meta(ge=stamp.TWAMP_OCTETS, le=65_000)] | None = None
    follow_up: bool | None = None
    location: bool = False
    class_of_service: bool = False
    timestamp_information: bool = False
    direct_measurement: bool = False
    reflector: Literal["any", "stateful", "stateless"] = "any"

    def __post_init__(self) -> None:
        if (self.mode is Mode.AUTHENTICATED) != (self.key_file is not None):
            wrong = "is missing" if self.key_file is None else f"{self.key_file!r}: is of no use"
            raise ConfigError(
                f"key_file: {wrong} in mode {self.mode.value}",
                remedy='an authenticated test needs mode = "authenticated" and a key_file',
            )
        self.plan()

    def plan(self) -> Plan:
        """What each packet is made of; ConfigError when it does not fit into `size_octets`."""
        return planned(
            self.mode,
            size_octets=self.size_octets,
            follow_up=self.follow_up,
            location=self.location,
            class_of_service=self.dscp if self.class_of_service else None,
            timestamp_information=self.timestamp_information,
            direct_measurement=self.direct_measurement,
        )


class Stamp:
    """Measures delay and loss against a STAMP reflector."""

    kind: ClassVar = "stamp"
    method: ClassVar = Method("stamp_unauthenticated", "2")
    Config: ClassVar = StampConfig
    exclusive: ClassVar = False
    has_port: ClassVar = True

    def __init__(self, config: StampConfig) -> None:
        self.config = config

    def measure(self, target: Target, context: ProbeContext) -> Sample:
        """The sample of one test; ConfigError when its key cannot be used."""
        config, port = self.config, target.port or stamp.PORT
        plan = config.plan()
        key = None if config.key_file is None else read_stamp_key(Path(config.key_file))

        def open_session(address: Address) -> tuple[socket.socket, EchoProtocol]:
            sock = context.network.udp(address.family)
            return sock, StampSession(
                plan,
                key=key,
                read_clock=clock_state,
                reflector=config.reflector,
                own_host=_own_host(context.network, address),
                own_port=lambda: int(sock.getsockname()[1]),
                far_host=address.host,
            )

        def type_p(address: Address | None) -> TypeP:
            return TypeP(
                protocol="udp",
                ip_version=address.ip_version if address else None,
                size_octets=plan.size_octets,
                dscp=config.dscp,
                destination_port=port,
            )

        return measure_echo(
            kind=self.kind,
            method=Method(f"stamp_{config.mode.value}", self.method.version),
            config=config,
            target=target,
            port=port,
            context=context,
            open_session=open_session,
            type_p=type_p,
        )


def _own_host(network: Network, address: Address) -> str | None:
    """The address this host sends from, which connecting a socket tells without sending anything."""
    with contextlib.suppress(OSError), network.udp(address.family) as sock:
        sock.connect(address.sockaddr)
        return str(sock.getsockname()[0])
    return None
