"""What every test here shares."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import settings

# The first example imports what it tests, and the machine may be busy: a deadline would judge that instead.
settings.register_profile("nhip", deadline=None)
settings.load_profile("nhip")


@pytest.fixture(scope="session", autouse=True)
def the_kernel_stamps_already() -> Iterator[None]:
    """Linux switches packet stamps on a moment after the first socket asks; here one has asked long ago.

    Without it the first packets of a test would now and then have our stamp instead of the kernel's.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
        yield
