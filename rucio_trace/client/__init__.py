"""A trace service, asked from scripts, notebooks, commands and daemons (docs/client.md).

`Client` waits for answers, `AsyncClient` is awaited; `ServiceStore` is a trace store that a service keeps.
"""

from rucio_trace.client.clients import AsyncClient, Client
from rucio_trace.client.errors import (
    BadAnswer,
    BadServiceUrl,
    BadToken,
    Denied,
    NoService,
    NotTaken,
    ServiceFailed,
    ServiceUnavailable,
    TooLarge,
    Unreadable,
)
from rucio_trace.client.spool import Spool, SpoolBroken, SpoolFull
from rucio_trace.client.store import ServiceStore
from rucio_trace.client.talk import Changes, Histories, Known

__all__ = [
    "AsyncClient",
    "BadAnswer",
    "BadServiceUrl",
    "BadToken",
    "Changes",
    "Client",
    "Denied",
    "Histories",
    "Known",
    "NoService",
    "NotTaken",
    "ServiceFailed",
    "ServiceStore",
    "ServiceUnavailable",
    "Spool",
    "SpoolBroken",
    "SpoolFull",
    "TooLarge",
    "Unreadable",
]
