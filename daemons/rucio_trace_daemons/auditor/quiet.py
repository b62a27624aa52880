"""Hours in which nothing is read: `08:00-18:00`, several with a comma, over midnight too; UTC. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import time
from typing import TYPE_CHECKING, Self

from rucio_trace.errors import ConfigurationError

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["Quiet"]

_SPAN = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-4]):([0-5][0-9])")


@dataclass(frozen=True, slots=True)
class Quiet:
    """The spans, each from its first minute to just before its last."""

    spans: tuple[tuple[time, time], ...] = ()

    @classmethod
    def parse(cls, text: str, option: str) -> Self:
        """Raises ConfigurationError, naming *option*."""
        spans = []
        for word in filter(None, (word.strip() for word in text.split(","))):
            match = _SPAN.fullmatch(word)
            hour, minute, end_hour, end_minute = map(int, match.groups()) if match else (0, 0, 99, 99)
            if end_hour * 60 + end_minute > 24 * 60:
                raise ConfigurationError(option, expected="hours as HH:MM-HH:MM, in UTC", found=word)
            spans.append((time(hour, minute), time(end_hour % 24, end_minute)))
        return cls(tuple(spans))

    def covers(self, now: datetime) -> bool:
        """Whether *now*, an aware UTC time, is a quiet one. A span that ends where it begins is the whole day."""
        at = now.time()
        return any(begin <= at < end if begin < end else at >= begin or at < end for begin, end in self.spans)
