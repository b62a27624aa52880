"""One round of those of Rucio's daemons that the sandbox does not run itself, and time made to pass for them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import update

if TYPE_CHECKING:
    from collections.abc import Callable

    from rucio_trace_sandbox.embedded import EmbeddedRucio

# Rucio compares its own naive UTC times: far enough back for every rule, DID and tombstone of a test.
LONG_AGO = datetime(2000, 1, 1)  # noqa: DTZ001


def _once(executable: str, run_once: Callable[..., Any], **arguments: Any) -> None:
    from rucio.daemons.common import HeartbeatHandler  # reads the configuration as it is imported

    with HeartbeatHandler(executable, renewal_interval=60) as heartbeat:
        run_once(heartbeat_handler=heartbeat, activity=None, **arguments)


def minos() -> None:
    """Turn reported PFNs into bad or temporarily unavailable replicas."""
    from rucio.daemons.badreplicas import minos as daemon

    _once("minos", daemon.run_once, bulk=1000)


def minos_expiration() -> None:
    """End what minos made temporarily unavailable."""
    from rucio.daemons.badreplicas import minos_temporary_expiration as daemon

    _once("minos-expiration", daemon.run_once, bulk=1000)


def hermes() -> None:
    """Hand Rucio's messages on."""
    from rucio.daemons.hermes import hermes as daemon

    _once("hermes", daemon.run_once, bulk=1000)


def judge_injector() -> None:
    """Apply rules that were made asynchronously."""
    from rucio.daemons.judge import injector as daemon

    _once("judge-injector", daemon.run_once, paused_rules={})


def judge_cleaner() -> None:
    """Remove rules whose time is over."""
    from rucio.daemons.judge import cleaner as daemon

    _once("judge-cleaner", daemon.run_once, paused_rules={})


def undertaker() -> None:
    """Remove DIDs whose time is over."""
    from rucio.daemons.undertaker import undertaker as daemon

    _once("undertaker", daemon.run_once, paused_dids={}, chunk_size=10)


def end_requests(rucio: EmbeddedRucio, state: str, **values: Any) -> None:
    """Make every transfer request one that the poller has seen end in *state*."""
    from rucio.db.sqla.constants import RequestState
    from rucio.db.sqla.models import Request

    with rucio.session() as session:
        session.execute(update(Request).values(state=RequestState[state], **values))


def end_rule(rucio: EmbeddedRucio, rule_id: str) -> None:
    """Let the hour pass that Rucio grants a removed rule."""
    from rucio.db.sqla.models import ReplicationRule

    with rucio.session() as session:
        session.execute(update(ReplicationRule).where(ReplicationRule.id == rule_id).values(expires_at=LONG_AGO))


def end_did(rucio: EmbeddedRucio, name: str) -> None:
    """Let the lifetime of a DID pass."""
    from rucio.db.sqla.models import DataIdentifier

    with rucio.session() as session:
        session.execute(update(DataIdentifier).where(DataIdentifier.name == name).values(expired_at=LONG_AGO))


def end_tombstones(rucio: EmbeddedRucio) -> None:
    """Let the grace of every replica that nothing holds pass."""
    from rucio.db.sqla.models import RSEFileAssociation as Replica

    with rucio.session() as session:
        session.execute(update(Replica).where(Replica.tombstone.is_not(None)).values(tombstone=LONG_AGO))


def in_an_hour() -> datetime:
    """Rucio's naive UTC of an hour from now."""
    return datetime.utcnow() + timedelta(hours=1)  # noqa: DTZ003
