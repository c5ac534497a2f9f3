"""What a reflector may be told: the ``[stamp]`` table of a server, and what follows from it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from nhip.errors import ConfigError
from probes.packets.stamp import PORT
from probes.stamp.key import read_stamp_key

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_MOST_KEYS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ReflectorSettings:
    """How a reflector answers, and whom."""

    stateful: bool = True
    """Number the answers of each session by itself, so that a sender can tell in which direction it loses."""
    authenticated: bool = False
    keys: tuple[bytes, ...] = ()
    replay_window_packets: int = 64
    freshness_seconds: float = 300.0
    most_sessions: int = 4_096
    most_sessions_per_client: int = 64
    session_idle_seconds: float = 600.0
    networks: tuple[IpNetwork, ...] = ()
    """Clients that are answered; everybody when empty."""
    honour_dscp: bool = True


class StampSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The STAMP reflector."""

    host: str = "::"
    """One address; ``::`` answers IPv4 too."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = PORT
    packets_per_second: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 2_000.0
    """To one client: an IPv4 address or an IPv6 /64."""
    mode: Literal["unauthenticated", "authenticated"] = "unauthenticated"
    """Authenticated answers only what is signed with a key of ``key_files``."""
    key_files: Annotated[list[str], msgspec.Meta(max_length=_MOST_KEYS)] = []
    """One key in each, readable by its owner only. Two while keys change: both are valid, and an answer is
    signed with the key of its request. Without authentication they serve senders that sign their TLVs."""
    stateful: bool = True
    """Number the answers of each session, so that a sender can tell loss on the way there from loss back."""
    most_sessions: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 4_096
    """In all. The one silent longest is forgotten first, of whoever has more than an even share. In
    authenticated mode none is whose packets could be replayed; a new one is refused then."""
    most_sessions_per_client: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 64
    """Of one IPv4 address or IPv6 /64, which loses its own oldest when it begins more. In authenticated mode
    it is an eighth of ``most_sessions`` where that is more."""
    session_idle_seconds: Annotated[float, msgspec.Meta(gt=0, le=172_800)] = 600.0
    """A session silent for longer begins anew. Authenticated: twice ``freshness_seconds`` or more."""
    replay_window_packets: Annotated[int, msgspec.Meta(ge=0, le=4_096)] = 64
    """Authenticated: how far behind the newest a packet may come; none comes twice. 0 answers replays."""
    freshness_seconds: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 300.0
    """Authenticated: how far T1 may be from this host's clock, before it or after it: a packet can stay fresh
    for twice as long. 0 does not look, and lets a packet be replayed once its session is forgotten."""
    networks: list[str] = []
    """Clients that are answered, such as ``["192.0.2.0/24", "2001:db8::/32"]``; everybody when empty."""
    honour_dscp: bool = True
    """Mark an answer as the sender's Class of Service TLV asks; otherwise with the mark of the request."""

    def __post_init__(self) -> None:
        for position, text in enumerate(self.networks):
            _network(text, f"stamp.networks[{position}]")
        for position, path in enumerate(self.key_files):
            if not Path(path).is_file():
                raise ConfigError(
                    f"stamp.key_files[{position}]: {path!r}: is no file", remedy="make one with: nhip key"
                )
        if self.mode == "authenticated" and not self.key_files:
            raise ConfigError(
                "stamp.key_files: is missing in authenticated mode", remedy="make a key with: nhip key"
            )
        if self.mode == "authenticated" and self.session_idle_seconds < 2 * self.freshness_seconds:
            raise ConfigError(
                f"stamp.session_idle_seconds: {self.session_idle_seconds:g}: is less than twice"
                " freshness_seconds",
                remedy="a session must be remembered for as long as its packets are fresh: write"
                f" {2 * self.freshness_seconds:g} or more, or a smaller freshness_seconds",
            )

    def settings(self) -> ReflectorSettings:
        """The settings with keys read; ConfigError when one cannot be used."""
        return ReflectorSettings(
            stateful=self.stateful,
            authenticated=self.mode == "authenticated",
            keys=tuple(read_stamp_key(Path(path)) for path in self.key_files),
            replay_window_packets=self.replay_window_packets,
            freshness_seconds=self.freshness_seconds,
            most_sessions=self.most_sessions,
            most_sessions_per_client=self.most_sessions_per_client,
            session_idle_seconds=self.session_idle_seconds,
            networks=tuple(_network(text, "stamp.networks") for text in self.networks),
            honour_dscp=self.honour_dscp,
        )


def _network(text: str, key: str) -> IpNetwork:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigError(
            f"{key}: {text!r}: {error}", remedy="write an address and a prefix length"
        ) from error
