"""Speed over a real shaped link between namespaces, held against the link's own arithmetic."""

from __future__ import annotations

import pytest

from nhip.clock import SystemClock
from nhip.lab.effects import Effects
from nhip.lab.namespace import inside
from nhip.measurement import Direction, Outcome, Target
from probes.api import ProbeContext
from probes.file_transfer import FileTransfer, FileTransferConfig
from probes.network import HostNetwork
from probes.server import MeasurementServer, ServerConfig
from tests.lab.network import LabLink, lab_link, lab_of

__all__ = ["lab_link", "lab_of"]

pytestmark = pytest.mark.lab

# Of an IP packet of 1500 octets, 1448 are payload: 20 of IPv4, 20 of TCP and 12 of its time stamps are not.
PAYLOAD_SHARE = 1448 / 1500


def test_each_direction_has_the_speed_its_link_leaves_to_the_payload(lab_link: LabLink) -> None:
    rates = {Direction.DOWN: 20e6, Direction.UP: 8e6}
    lab = lab_link(
        down=Effects(delay_seconds=0.005, rate_bits_per_second=rates[Direction.DOWN]),
        up=Effects(delay_seconds=0.005, rate_bits_per_second=rates[Direction.UP]),
    )
    server = MeasurementServer(ServerConfig(hosts=[lab.address("far")], port=0), SystemClock())
    with inside(f"{lab.name}-far"):
        server.start()
    try:
        target = Target(id="far", host=lab.address("far"), port=server.port)
        context = ProbeContext(clock=SystemClock(), network=HostNetwork())
        for direction, rate in rates.items():
            config = FileTransferConfig(
                direction=direction.value,
                expected_bits_per_second=rate,
                duration_seconds=3.0,
                congestion_control="cubic",
            )
            with inside(f"{lab.name}-near"):
                (singleton,) = FileTransfer(config).measure(target, context).singletons
            assert singleton.outcome is Outcome.RECEIVED, singleton.detail
            assert singleton.transfer is not None
            measured = singleton.transfer.octets * 8e9 / singleton.transfer.duration_ns
            assert measured == pytest.approx(rate * PAYLOAD_SHARE, rel=0.03), direction
    finally:
        server.close()
