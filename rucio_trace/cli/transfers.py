"""What `upload` and `download` share: Rucio's client, and its talk on stderr."""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

from rucio_trace.cli.terminal import printable
from rucio_trace.errors import ConfigurationError, Undecided

__all__ = ["RucioRefused", "client", "logger", "without_secrets"]

# What may stand in a URL and must not stand on a screen or in a log: a query that signs it, and who logs in.
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?'\"<>]*)\?[^\s'\"<>]*", re.IGNORECASE)
_LOGIN = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/?#@'\"<>]+@", re.IGNORECASE)


class RucioRefused(Undecided):
    """Rucio, or its client, did not do what was asked."""

    def __init__(self, error: Exception) -> None:
        text = without_secrets(str(error)).strip().splitlines()
        super().__init__("Rucio", found=f"{type(error).__name__}: {text[0] if text else 'no reason'}")


def without_secrets(text: str) -> str:
    """*text* with no query and no login left in the URLs in it: a presigned URL is a key to the file."""
    return _LOGIN.sub(r"\1…@", _QUERY.sub(r"\1?…", text))


def client() -> Any:
    """Rucio's own client, as its configuration file says.

    Raises:
        ConfigurationError: there is no such file.
    """
    from rucio.client import Client
    from rucio.common.exception import ConfigNotFound

    try:
        return Client()
    except ConfigNotFound as error:
        expected = "rucio.cfg below $RUCIO_HOME/etc, or where $RUCIO_CONFIG says"
        raise ConfigurationError("Rucio's client", expected=expected, found="no configuration") from error


class _Talk(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        line = printable(without_secrets(record.getMessage()), limit=None)
        sys.stderr.write(f"{line}\n")  # as it is now: a display that is shown takes its place, and writes above itself


def logger() -> logging.Logger:
    """What Rucio's clients report, as lines on stderr."""
    talk = logging.getLogger("rucio_trace.transfers")
    talk.handlers = [_Talk()]
    talk.setLevel(logging.INFO)
    talk.propagate = False
    return talk
