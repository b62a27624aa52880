"""`trace_origin`: the producer's own trace of a file, the one `trace_` key that a client may set (docs/format.md, 9.4).

Rucio has asked before whether the account may write the DID. Here the trace is held against whom this server trusts
and against the DID. What it becomes is the recorder's to say, once it has read the bytes.

A trace is taken for one product and for no other one, ever: rows stay when their product is gone. Who sets it and the
recorder that signs the product's first trace wait for each other at the product's rows in the outbox, so that a trace
is either known before the recorder speaks or refused.
"""

from __future__ import annotations

import json
import logging
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rucio.common.exception import DataIdentifierNotFound, InvalidMetadata
from rucio.db.sqla.constants import DIDType
from rucio.db.sqla.models import DataIdentifier
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from rucio_trace.checking import Refused, check_trace
from rucio_trace.config import Settings
from rucio_trace.envelope import parse_traces, to_json
from rucio_trace.errors import ConfigurationError, TraceabilityError
from rucio_trace.trace import SCHEMA, Event, base_name
from rucio_trace.watched import Trusted

from . import ddl
from .provenance import ORIGIN
from .tables import tables

if TYPE_CHECKING:
    from rucio.common.types import InternalScope
    from sqlalchemy.orm import Session

    from rucio_trace.envelope import Trace
    from rucio_trace.identity import Trust

    from .tables import Tables

__all__ = ["set_origin"]

LOG = logging.getLogger("rucio_trace")

# Rucio pads no checksum; a trace gives every digit.
_CHECKSUM_DIGITS = {"ADLER32": 8, "MD5": 32}


class _Server:
    """What rucio-trace.toml on this server says now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._trusted: Trusted | None = None

    def trust(self) -> tuple[Trust, bool]:
        """Whom it trusts, and whether a stale revocation list will do.

        Raises:
            ConfigurationError: nobody, or the files that say so cannot be read.
        """
        settings = Settings.load().trust
        with self._lock:
            if self._trusted is None or self._trusted.settings != settings:
                self._trusted = Trusted(settings)
            trust = self._trusted()
        if trust is None:
            raise ConfigurationError("trust.federation", expected="whom to trust", found="nobody")
        return trust, settings.allow_stale_crl


_SERVER = _Server()


def set_origin(session: Session, scope: InternalScope, name: str, value: Any) -> None:
    """Take *value*, the JSON text of a trace, as the producer's word on this file.

    The same trace for the same product again changes nothing.

    Raises:
        InvalidMetadata: it is no such trace, or not one for this file; the reason is in it.
        DataIdentifierNotFound: Rucio knows no such name.
    """
    did = f"{scope.external}:{name}"
    try:
        trace = _read(value)
        _check_kind(trace)
        _check_signer(trace, str(scope.external))
    except TraceabilityError as error:
        raise _refusal(did, str(error)) from error
    file = _file(session, scope, name)
    _check_file(did, trace, file)
    _keep(session, (scope.internal, name, file.created_at), did, trace)


def _refusal(did: str, reason: str) -> InvalidMetadata:
    return InvalidMetadata(f"{ORIGIN} of {did} refused: {reason}")


# The trace by itself -------------------------------------------------------------------------------------------------


def _read(value: Any) -> Trace:
    if not isinstance(value, str):
        raise TraceabilityError("value", expected="the JSON text of a trace", found=type(value).__name__)
    traces = parse_traces(value.encode("utf-8", "surrogatepass"))
    if len(traces) != 1:
        raise TraceabilityError("value", expected="one trace", found=f"{len(traces)}")
    return traces[0]


def _check_kind(trace: Trace) -> None:
    """It must be a CREATE in our own format of a file that was in no Rucio when it was signed."""
    if trace.faults:
        raise Refused(trace, trace.faults)
    s = trace.statement
    if s.schema != SCHEMA:
        raise TraceabilityError("schema", expected=SCHEMA, found=s.schema or "none: it is not signed")
    if s.event is not Event.CREATE:
        raise TraceabilityError("event", expected=Event.CREATE, found=s.event)
    if s.product is not None:
        raise TraceabilityError("product", expected="a file that is in no Rucio yet", found=str(s.did))


def _check_signer(trace: Trace, scope: str) -> None:
    try:
        trust, allow_stale_crl = _SERVER.trust()
    except ConfigurationError as error:
        LOG.error("no-trust %s", error)
        raise TraceabilityError(
            "signer", found="this server has no usable list of whom to trust", hint="its log says why"
        ) from error
    check_trace(trace, trust, datetime.now(UTC), allow_stale_crl=allow_stale_crl, scope=scope)


# The trace and the file ----------------------------------------------------------------------------------------------


def _file(session: Session, scope: InternalScope, name: str) -> Any:
    model = DataIdentifier
    session.flush()  # the file may be part of this very transaction
    query = select(model.did_type, model.bytes, model.adler32, model.md5, model.created_at)
    found = session.execute(query.where(model.scope == scope, model.name == name)).one_or_none()
    if found is None:
        raise DataIdentifierNotFound(f"Data identifier '{scope.external}:{name}' not found")
    if found.did_type is not DIDType.FILE:
        raise _refusal(f"{scope.external}:{name}", "it is no file")
    return found


def _check_file(did: str, trace: Trace, file: Any) -> None:
    s = trace.statement
    name = base_name(did.partition(":")[2])
    if s.name != name:
        raise _refusal(did, f"it is the trace of {s.name!r}, not of {name!r}")
    if s.size != file.bytes:
        raise _refusal(did, f"it says {s.size} bytes, Rucio {file.bytes}")
    known = {"ADLER32": file.adler32, "MD5": file.md5}
    known = {a: h.strip().lower().zfill(_CHECKSUM_DIGITS[a]) for a, h in known.items() if h and h.strip()}
    common = known.keys() & s.digests.keys()
    if not common:
        raise _refusal(did, f"no checksum in common: it has {', '.join(s.digests)}, Rucio {', '.join(known) or 'none'}")
    for algorithm in sorted(common):
        if s.digests[algorithm] != known[algorithm]:
            raise _refusal(did, f"it says {algorithm} {s.digests[algorithm]}, Rucio {known[algorithm]}")


# The trace and what is known of the product --------------------------------------------------------------------------


def _keep(session: Session, key: tuple[str, str, datetime], did: str, trace: Trace) -> None:
    ours = tables(session.get_bind().dialect.name)
    _wait_for_recorder(session, ours, key, did)
    if _is_known(session, ours, key, did, trace):
        return
    product = _of(ours.products, key)
    origin = session.execute(select(ours.products.c.trace_id).where(product).with_for_update()).scalar()
    if origin is not None:
        raise _refusal(did, f"the product has an origin already, trace {origin}")
    values = {
        **dict(zip(("scope", "name", "generation"), key, strict=True)),
        "trace_id": trace.id,
        "trace": json.dumps(to_json(trace), ensure_ascii=False, separators=(",", ":")),
        "at": ddl.now(session.get_bind().dialect.name),
    }
    try:
        with session.begin_nested():
            session.execute(insert(ours.origins).values(**values))
    except IntegrityError as error:
        if not _is_known(session, ours, key, did, trace):
            raise _refusal(did, "another one was set at the same time") from error


def _wait_for_recorder(session: Session, ours: Tables, key: tuple[str, str, datetime], did: str) -> None:
    """Hold the product's rows until our transaction ends: no first trace is signed meanwhile, or it was before."""
    outbox = ours.outbox
    if ours.dialect_name == "sqlite":
        # There only what writes waits its turn, and what was read before that may be old by then.
        session.execute(update(outbox).where(outbox.c.id < 0).values(attempts=0))
    these = _of(outbox, key)
    if ours.dialect_name == "mysql":
        # Found by that condition they would be locked with the gaps beside them, where the trigger inserts that comes
        # with a new file's replica: two uploads would wait for each other.
        these = outbox.c.id.in_(session.scalars(select(outbox.c.id).where(these)).all())
    rows = session.execute(select(outbox.c.message).where(these).with_for_update())
    if any(message is not None for message in rows.scalars()):
        raise _refusal(did, "the product's first replica has been recorded")


def _is_known(session: Session, ours: Tables, key: tuple[str, str, datetime], did: str, trace: Trace) -> bool:
    """Whether this very trace was set for this product before; raises for every other row in its way."""
    origins = ours.origins
    columns = (origins.c.scope, origins.c.name, origins.c.generation, origins.c.trace_id)
    rows = session.execute(select(*columns).where((origins.c.trace_id == trace.id) | _of(origins, key))).all()
    for row in rows:
        same = (row.scope, row.name, row.generation.replace(tzinfo=None)) == key
        if same and row.trace_id == trace.id:
            return True
        if same:
            raise _refusal(did, f"it is set already, to trace {row.trace_id}")
        raise _refusal(did, f"trace {trace.id} was used for another product")
    return False


def _of(table: Any, key: tuple[str, str, datetime]) -> Any:
    return (table.c.scope == key[0]) & (table.c.name == key[1]) & (table.c.generation == key[2])
