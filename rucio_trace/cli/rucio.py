"""Rucio's own database, where a command finds itself beside it: what it says of a DID, and what it is to show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rucio_trace.cli.terminal import printable, say
from rucio_trace.trace import format_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from rucio_trace.config import Settings
    from rucio_trace.identity import Trust
    from rucio_trace.store import TraceStore
    from rucio_trace.trace import ProductKey

__all__ = ["living_generation", "show_in_rucio"]

_LATER = "trace_status follows as soon as a recorder looks at the store"


def _engine() -> Engine | None:
    """None where no Rucio is installed, or its rucio.cfg names no database."""
    try:
        from rucio_trace_policy.database import NoDatabase, open_database

        try:
            return open_database()[0]
        except NoDatabase:
            return None
    except ModuleNotFoundError:
        return None


def living_generation(key: ProductKey) -> str | None:
    """When Rucio created what bears the name of *key* now; None if there is nothing, or nobody to ask."""
    engine = _engine()
    if engine is None:
        return None
    from rucio_trace_daemons.recorder.refresh import living
    from sqlalchemy.exc import DBAPIError

    try:
        found = living(engine, [key])
    except DBAPIError as error:
        say(f"note: Rucio's database does not say what bears this name now: {printable(str(error).splitlines()[0])}")
        return None
    return next((format_time(moment) for _, _, moment in found.values()), None)


def show_in_rucio(settings: Settings, store: TraceStore, trust: Trust, products: Sequence[ProductKey]) -> None:
    """Have Rucio's metadata follow at once where its database is at hand; else say what will."""
    products = [key for key in products if key.rucio == settings.instance.name]
    if not products:
        return
    engine = _engine()
    if engine is None:
        say(f"Rucio's database is not at hand: {_LATER}")
        return
    from rucio_trace_daemons.recorder.finish import Names
    from rucio_trace_daemons.recorder.refresh import refresh
    from sqlalchemy.exc import DBAPIError

    try:
        shown = refresh(engine, store, Names(engine), trust, products)
    except DBAPIError as error:
        say(f"Rucio's database does not answer ({printable(str(error).splitlines()[0])}): {_LATER}")
        return
    for key, status in shown.items():
        say(f"{printable(key.did)} in Rucio: {status.status}, {status.trace_replicas} good")
