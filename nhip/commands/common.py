"""What every command needs: errors in words, JSON, logging, stop signals."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import click

from nhip.errors import NhipError
from nhip.extras import missing_extra

CANNOT = 2
"""The exit code of a command that could not do what it was asked."""


@contextlib.contextmanager
def explained() -> Iterator[None]:
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


def json_text(document: Any) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def log_to_stderr() -> None:
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )


def on_stop_signals(stop: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop())
