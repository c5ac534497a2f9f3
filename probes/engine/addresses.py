"""Where the targets of a lane are: one row of octets each, names looked up again every so often."""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from nhip.errors import CannotMeasureError
from nhip.measurement import Target
from probes.engine.batch import Octets, host_part, sockaddr
from probes.engine.group import TargetList
from probes.engine.packet import Bools
from probes.network import Address, Network

log = logging.getLogger("nhip.engine")

_LOOK_UP_SECONDS = 5.0
_LOOK_UPS_AT_ONCE = 16


class AddressBook:
    """The addresses of targets of one IP version, and which of them are known."""

    def __init__(self, family: socket.AddressFamily, targets: TargetList, positions: Sequence[int]) -> None:
        self.family = family
        self._targets = targets
        self.positions = np.array(positions, np.int32)
        self.rows: Octets = np.zeros((len(positions), 32), np.uint8)
        self.known: Bools = np.zeros(len(positions), np.bool_)
        self.names: list[int] = []
        """The rows whose target is a name and no address."""
        self._before: Octets | None = None
        self.changed = 0
        """How often a name was found to have another address than before."""

    def __len__(self) -> int:
        return len(self.positions)

    def target(self, row: int) -> Target:
        """The target in one row."""
        return self._targets[int(self.positions[row])]

    @property
    def hosts(self) -> Octets:
        """The address octets alone, one row for each target."""
        return self.rows[:, host_part(self.family)]

    @property
    def answering_hosts(self) -> list[Octets]:
        """The addresses replies may come from: those of now, and of probes sent before the last change."""
        part = host_part(self.family)
        return [self.hosts] if self._before is None else [self.hosts, self._before[:, part]]

    def set(self, position: int, address: Address | None) -> None:
        """Note what a look-up gave; the address before stays when it gave none."""
        if address is None or address.family is not self.family:
            return
        scope = int(address.sockaddr[3]) if len(address.sockaddr) > 3 else 0
        row = np.frombuffer(sockaddr(self.family, address.host, scope), np.uint8)
        if self.known[position] and not (self.rows[position] == row).all():
            self.changed += 1
            self._before = self.rows.copy()
        self.rows[position] = row
        self.known[position] = True

    def text(self, position: int) -> str | None:
        """The address as people write it; `None` while it is not known."""
        if not self.known[position]:
            return None
        packed = self.rows[position, host_part(self.family)].tobytes()
        return str(ipaddress.ip_address(packed))

    def position_of(self, row: bytes) -> int | None:
        """The target at the address in one row as the kernel writes it."""
        part = host_part(self.family)
        wanted = np.frombuffer(row, np.uint8)[part]
        found = np.flatnonzero((self.hosts == wanted).all(axis=1) & self.known)
        return int(found[0]) if len(found) else None

    def samples(self, most: int) -> list[Address]:
        """Some known addresses from the whole list, to ask the kernel for its way there."""
        known = np.flatnonzero(self.known)
        chosen = known[:: max(1, len(known) // most)][:most].tolist()
        tail = () if self.family is socket.AF_INET else (0, 0)
        return [Address(self.family, (self.text(row), 0, *tail)) for row in chosen]


def sort_by_family(targets: TargetList, network: Network) -> list[AddressBook]:
    """The targets in one book for each IP version; a name's version is that of its first address.

    A name that has none now goes with IPv4, where later look-ups may find it. CannotMeasureError for an
    address of a version this network does not send.
    """
    positions: dict[socket.AddressFamily, list[int]] = {socket.AF_INET: [], socket.AF_INET6: []}
    names = []
    for position, target in enumerate(targets):
        if _is_literal(target.host):
            positions[socket.AF_INET6 if ":" in target.host else socket.AF_INET].append(position)
        else:
            names.append(position)
    found: dict[int, Address | None] = {}
    if names:
        with ThreadPoolExecutor(_LOOK_UPS_AT_ONCE, thread_name_prefix="look-up") as pool:
            answers = pool.map(lambda position: _resolve(targets[position].host, network), names)
            found = dict(zip(names, answers, strict=True))
    for position, address in found.items():
        positions[address.family if address else socket.AF_INET].append(position)
    return [
        _filled(AddressBook(family, targets, mine), found, network)
        for family, mine in positions.items()
        if mine
    ]


def _filled(book: AddressBook, found: dict[int, Address | None], network: Network) -> AddressBook:
    plain = network.source is None and getattr(network, "ip_version", None) is None
    for row in range(len(book)):
        host = book.target(row).host
        if not _is_literal(host):
            book.names.append(row)
            book.set(row, found[int(book.positions[row])])
        elif plain and "%" not in host:
            # An address asks for no resolver, and there may be a hundred thousand of them.
            book.rows[row] = np.frombuffer(sockaddr(book.family, host), np.uint8)
            book.known[row] = True
        else:
            book.set(row, network.resolve(host, 0, timeout_seconds=_LOOK_UP_SECONDS))
    return book


class Refresher:
    """Looks the names of all lanes up again, in its own thread; the loop never waits for a name."""

    def __init__(self, books: Sequence[AddressBook], network: Network, *, every_seconds: float) -> None:
        self._names = [(book, row, book.target(row).host) for book in books for row in book.names]
        self._network = network
        self._every_seconds = every_seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, if any target is a name."""
        if self._names:
            self._thread = threading.Thread(target=self._run, name="look-up again", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop; a look-up that hangs is left to itself."""
        self._stop.set()

    def look_up(self) -> None:
        """Every name once."""
        for book, row, host in self._names:
            if self._stop.is_set():
                return
            book.set(row, _resolve(host, self._network))

    def _run(self) -> None:
        while not self._stop.wait(self._every_seconds):
            self.look_up()


def _is_literal(host: str) -> bool:
    # What is neither was refused before; a name's last label is no number.
    return ":" in host or (host[-1:].isdigit() and host.replace(".", "").isdigit())


def _resolve(host: str, network: Network) -> Address | None:
    try:
        return network.resolve(host, 0, timeout_seconds=_LOOK_UP_SECONDS)
    except CannotMeasureError as error:
        log.error("name of a target not looked up: %s", error)
        return None
