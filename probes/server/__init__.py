"""The measurement server: what probes transfer files with, and a resolver whose answers are known.

``MeasurementServer`` serves file transfers over HTTP (see :mod:`probes.transfer_protocol`);
:class:`probes.server.dns_responder.DnsResponder` answers questions below one zone. Both are started by
``nhip server`` and neither sends more than it was asked for.
"""

from probes.server.config import ServerConfig
from probes.server.service import MeasurementServer, run

__all__ = ["MeasurementServer", "ServerConfig", "run"]
