"""What a file_transfer probe and a measurement server say to each other.

::

    GET  /v1/file?octets=N      200, N random octets
    POST /v1/file               200, a receipt (JSON): how many octets came in how long, by the receiver
    GET  /v1/status             200, JSON: what the server is doing
    GET  /                      200, "ok"

Every answer carries the format field, which a captive portal's "200 OK" does not, and the name of the
congestion control that paced the server's half. 429 and 503 mean "busy", with Retry-After.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

DEFAULT_PORT = 8862
FILE_PATH = "/v1/file"
STATUS_PATH = "/v1/status"
FORMAT = "nhip-file/1"
FORMAT_FIELD = "nhip-format"
CONGESTION_FIELD = "nhip-congestion-control"


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What the server received of an upload.

    `duration_ns` runs from the first octet of the request read to the last octet of the file read, on the
    server's monotonic clock.
    """

    octets: Annotated[int, msgspec.Meta(ge=0)]
    duration_ns: Annotated[int, msgspec.Meta(ge=0)]
