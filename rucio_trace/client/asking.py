"""One question to a trace service, asked until there is an answer or patience ends: decisions, and no I/O.

What talks to a service is written once, as a `Script`: a generator that yields a `Request` or a `Pause` and is sent
what came of it. `Client` and `AsyncClient` run the same scripts, each in its own way.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from rucio_trace import strictjson
from rucio_trace.client.errors import (
    BadAnswer,
    BadServiceUrl,
    Denied,
    NoService,
    NotTaken,
    ServiceFailed,
    ServiceUnavailable,
    TooLarge,
    Unreadable,
)
from rucio_trace.errors import Malformed

__all__ = [
    "MAX_ANSWER_BYTES",
    "READ_SECONDS",
    "Answer",
    "Pause",
    "Request",
    "Script",
    "Unreached",
    "ask",
    "check_url",
    "is_here",
    "is_in_the_open",
    "read",
]

MAX_ANSWER_BYTES: Final = 256 * 1024**2
"""As many as 80,000 traces have; a service that sends more fills no memory of ours."""

MAX_VALUES: Final = 32 * strictjson.MAX_VALUES  # of JSON, in such an answer

READ_SECONDS: Final = 60.0  # of silence; the longest work that a service does for one question
FIRST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 30.0

_TRY_AGAIN: Final = frozenset({408, 429, 502, 503, 504})
_UNREADABLE: Final = frozenset({400, 411, 414, 415, 422, 431})
_PROBLEM: Final = "application/problem+json"
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """*path* is below the service's URL; *body* is JSON, to be sent as gzip. `seconds`: how long it may be silent."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = field(default=None, repr=False)
    seconds: float = READ_SECONDS


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whatever it says; the names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unreached:
    """Why nothing came back. What is `final` will be no better in a minute."""

    reason: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


Script = Generator[Request | Pause, Answer | Unreached | None, T]


def check_url(url: str, *, secret: bool) -> str:
    """Where a service is, without a slash at the end. With a *secret* to send it is wanted over TLS.

    Raises:
        BadServiceUrl: no such URL.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise BadServiceUrl("URL", str(error)) from None
    if parts.scheme not in ("http", "https") or not host:
        raise BadServiceUrl("URL", url if "@" not in url else "another URL")
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise BadServiceUrl(shown, "more than that")
    if secret and is_in_the_open(url):
        raise BadServiceUrl(shown, "http, on which anybody could read the token", "use https")
    return shown.rstrip("/")


def is_here(url: str) -> bool:
    """Whether *url* is of this machine, be it through a tunnel that ends here."""
    return urlsplit(url).hostname in _LOCAL


def is_in_the_open(url: str) -> bool:
    """Whether anybody on the way could read and change what is said."""
    return urlsplit(url).scheme != "https" and not is_here(url)


def ask(request: Request, url: str, patience: float) -> Script[Answer]:
    """The answer to *request*, a good one or a refusal to be `read`; asked again for *patience* seconds.

    Raises:
        ServiceUnavailable: there was none.
    """
    until = time.monotonic() + patience
    pause = FIRST_PAUSE_SECONDS
    while True:
        found = yield request
        assert isinstance(found, Answer | Unreached)
        if isinstance(found, Answer) and found.status not in _TRY_AGAIN:
            return found
        wished = _retry_after(found) if isinstance(found, Answer) else None
        # Others were turned away at the same moment: not all may come back at the same one.
        wait = pause * random.uniform(0.5, 1.0) if wished is None else wished + random.uniform(0.0, 1.0)  # noqa: S311
        if (isinstance(found, Unreached) and found.final) or time.monotonic() + wait > until:
            reason = found.reason if isinstance(found, Unreached) else _detail(found)
            raise ServiceUnavailable(url, reason)
        yield Pause(wait)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _retry_after(answer: Answer) -> float | None:
    text = answer.headers.get("retry-after", "").strip()
    try:
        if text.isdigit():
            return min(float(text[:9]), LONGEST_PAUSE_SECONDS)
        seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):  # none, or a date without a zone
        return None
    return min(max(seconds, 0.0), LONGEST_PAUSE_SECONDS)


def read(answer: Answer, url: str, what: str, parse: Callable[[Any], T]) -> T:
    """What *parse* makes of the JSON of a good answer; *what* names it in errors.

    Raises:
        Unreadable, NotTaken, Denied, NoService: the service refuses, for the reason that it gives.
        ServiceUnavailable: it has failed.
        BadAnswer: it is not what was asked for; no other error escapes.
    """
    check(answer, url)
    try:
        value = strictjson.read(answer.body, what, max_bytes=MAX_ANSWER_BYTES, max_values=MAX_VALUES)
        return parse(value)
    except Malformed as error:
        raise BadAnswer(url, error.subject, error.expected, error.found) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadAnswer(url, what, "as docs/service.md has it", f"{type(error).__name__}: {error}") from error


def check(answer: Answer, url: str) -> None:
    """Accept a good answer; raises as `read` does."""
    status = answer.status
    if status in (200, 202):
        return
    if status >= 500:
        raise (ServiceFailed if status == 500 else ServiceUnavailable)(url, _detail(answer))
    if status in (401, 403):
        raise Denied(url, _detail(answer))
    if status == 413:  # a proxy before the service has a limit of its own, and words of its own
        raise TooLarge(url, _detail(answer))
    if not is_problem(answer):
        raise NoService(url, _detail(answer))
    raise (Unreadable if status in _UNREADABLE else NotTaken)(url, _detail(answer))


def is_problem(answer: Answer) -> bool:
    """Whether a trace service says no, and not something else at its address."""
    return answer.headers.get("content-type", "").partition(";")[0].strip().lower() == _PROBLEM


def _detail(answer: Answer) -> str:
    """The reason that a refusal gives, with its status."""
    status = f"status {answer.status}"
    if "location" in answer.headers:
        return f"{status}, a redirection to {answer.headers['location'].partition('?')[0]}"
    try:
        value = strictjson.read(answer.body, "problem")
        detail = value["detail"]
        return f"{detail} ({status})" if isinstance(detail, str) else status
    except (Malformed, KeyError, TypeError):
        return status
