"""The RSEs a daemon was told to look at, by an RSE expression of Rucio's."""

from __future__ import annotations

import threading
import time

from rucio.common.exception import InvalidRSEExpression
from rucio.core.rse_expression_parser import parse_expression
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session

from rucio_trace.errors import ConfigurationError

__all__ = ["Chosen", "matching"]

# RSEs that come to match an expression are followed within this time.
FOLLOW_SECONDS = 60.0


class Chosen:
    """The ids of the RSEs that *expression* names, asked at most once a minute; None for all."""

    def __init__(self, option: str, expression: str) -> None:
        self._option, self._expression, self._lock = option, expression, threading.Lock()
        self._until, self._ids = 0.0, set[str]()

    def __call__(self) -> set[str] | None:
        if self._expression.strip() == "*":
            return None
        with self._lock:
            if time.monotonic() > self._until:
                self._ids = matching(self._option, self._expression)
                self._until = time.monotonic() + FOLLOW_SECONDS
            return self._ids


def matching(option: str, expression: str) -> set[str]:
    """The ids of the RSEs that *expression* names.

    Raises:
        ConfigurationError: naming *option*, that it is no RSE expression, or names no RSE.
    """
    try:
        with db_session(DatabaseOperationType.READ) as session:
            return {rse["id"] for rse in parse_expression(expression, session=session)}
    except InvalidRSEExpression as error:
        raise ConfigurationError(option, expected="RSEs, as an RSE expression", found=str(error)) from error
