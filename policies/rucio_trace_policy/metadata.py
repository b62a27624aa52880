"""Rucio metadata plugins: `trace_` keys of DIDs, read-only to everybody, but for `trace_origin`.

    [metadata]
    plugins = rucio_trace_policy.metadata.TraceabilityDidMeta,rucio_trace_policy.metadata.GuardedJSONDidMeta

(no space after the comma: Rucio keeps it). `TraceabilityDidMeta` manages every key that begins with `trace_`, in any
case, and stands first, so that writing one is refused. The one exception is the producer's own trace, which `origins`
lets in once. `GuardedJSONDidMeta` is Rucio's own JSON plugin that does not
show such keys: in `ALL` Rucio lets the last plugin win, and anybody may have written them before we came.

Import `rucio.core.did_meta_plugins` and not this module: Rucio imports it from there, and the other way round is a
circle. Filters that mix our keys with another plugin's are impossible in Rucio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rucio.common.exception import DIDFilterSyntaxError, InvalidMetadata
from rucio.core.did_meta_plugins.did_meta_plugin_interface import DidMetaPlugin
from rucio.core.did_meta_plugins.json_meta import JSONDidMeta
from rucio.db.sqla.constants import DIDType
from rucio.db.sqla.models import DataIdentifier
from rucio.db.sqla.session import read_session, stream_session, transactional_session
from rucio.db.sqla.util import json_implemented
from sqlalchemy import and_, or_, true

from .filters import condition
from .origins import set_origin
from .provenance import ORIGIN, PREFIX, column_of, living_dids, read_metadata
from .tables import Tables, tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rucio.common.types import InternalScope
    from sqlalchemy.orm import Session

__all__ = ["GuardedJSONDidMeta", "TraceabilityDidMeta"]

# What a listing of each type can hold. `collection` is what clients ask for when the user names no type: an answer
# without the files to "which are TAMPERED?" would be a dangerous one.
_FILE, _DATASET = DIDType.FILE, DIDType.DATASET
_TYPES = {"all": (_FILE, _DATASET), "collection": (_FILE, _DATASET), "file": (_FILE,), "dataset": (_DATASET,)}
_NOTHING_SAID = "container"


class ReadOnlyKey(InvalidMetadata, NotImplementedError):
    """Nobody deletes a `trace_` key (REST answers 409 to a NotImplementedError here, and 500 to all but a few)."""


def is_trace_key(key: str) -> bool:
    """Whether *key* is ours to manage."""
    return key.casefold().startswith(PREFIX)


class TraceabilityDidMeta(DidMetaPlugin):
    """What traces say of a file or dataset; written by the recorder, and `trace_origin` by its producer."""

    def __init__(self) -> None:
        super().__init__()
        self._plugin_name = "TRACEABILITY"

    @read_session
    def get_metadata(self, scope: InternalScope, name: str, *, session: Session) -> dict[str, Any]:
        return read_metadata(session, scope, name)

    @transactional_session
    def set_metadata(
        self, scope: InternalScope, name: str, key: str, value: Any, recursive: bool = False, *, session: Session
    ) -> None:
        if key != ORIGIN:
            raise InvalidMetadata(f"{key} of {scope.external}:{name} is read-only: only traces speak under {PREFIX}")
        set_origin(session, scope, name, value)

    @transactional_session
    def set_metadata_bulk(
        self, scope: InternalScope, name: str, metadata: Mapping[str, Any], recursive: bool = False, *, session: Session
    ) -> None:
        for key, value in metadata.items():
            self.set_metadata(scope, name, key, value, recursive, session=session)

    def delete_metadata(self, scope: InternalScope, name: str, key: str, *, session: Session | None = None) -> None:
        raise ReadOnlyKey(f"{key} of {scope.external}:{name} is read-only: only traces speak under {PREFIX}")

    @read_session
    def manages_key(self, key: str, *, session: Session) -> bool:
        return is_trace_key(key)

    @stream_session
    def list_dids(
        self,
        scope: InternalScope,
        filters: Mapping[str, Any] | list[Mapping[str, Any]],
        did_type: str = "collection",
        ignore_case: bool = False,
        limit: int | None = None,
        offset: int | None = None,
        long: bool = False,
        recursive: bool = False,
        ignore_dids: set[str] | None = None,
        *,
        session: Session,
    ) -> Iterator[str | dict[str, Any]]:
        """Files and datasets of *scope* that match; `recursive` changes nothing: each is asked for itself."""
        ours = tables(session.get_bind().dialect.name)
        groups = _groups([filters] if isinstance(filters, dict) else filters, did_type)
        if not groups:
            return
        query = (
            living_dids(ours, *(getattr(DataIdentifier, name) for name in ("name", "did_type", "bytes", "length")))
            .where(DataIdentifier.scope == scope, DataIdentifier.suppressed != true())
            .where(or_(*(_matching(ours, types, criteria) for types, criteria in groups)))
            .order_by(DataIdentifier.name)
            .limit(limit or None)
            .offset(offset or None)
        )
        ignored = ignore_dids or set()
        for row in session.execute(query).yield_per(100):
            if f"{scope}:{row.name}" in ignored:
                continue
            yield _shown(scope, row) if long else row.name


class GuardedJSONDidMeta(JSONDidMeta):
    """Rucio's JSON plugin without the `trace_` keys that somebody may have put there.

    On a database for which Rucio has no JSON plugin it says nothing, instead of failing every question for `ALL`.
    """

    @read_session
    def get_metadata(self, scope: InternalScope, name: str, *, session: Session) -> dict[str, Any]:
        if not json_implemented(session=session):
            return {}
        metadata = super().get_metadata(scope, name, session=session)
        return {key: value for key, value in (metadata or {}).items() if not is_trace_key(key)}


def _groups(groups: list[Mapping[str, Any]], did_type: str) -> list[tuple[tuple[DIDType, ...], dict[str, Any]]]:
    """The filter groups that something can match, each with the types it asks for."""
    kept = []
    for group in groups:
        criteria = dict(group)
        wanted = str(criteria.pop("type", did_type)).lower()
        if wanted in _TYPES:
            kept.append((_TYPES[wanted], criteria))
        elif wanted != _NOTHING_SAID:
            raise DIDFilterSyntaxError(f"type should be one of {', '.join(sorted([*_TYPES, _NOTHING_SAID]))}")
    return kept


def _matching(ours: Tables, types: tuple[DIDType, ...], criteria: Mapping[str, Any]) -> Any:
    return and_(DataIdentifier.did_type.in_(types), condition([criteria], lambda key: _column(ours, key)))


def _column(ours: Tables, key: str) -> Any:
    if is_trace_key(key):
        return column_of(ours, key)
    if key == "name":
        return DataIdentifier.name
    raise InvalidMetadata(f"{key}: Rucio cannot mix {PREFIX} keys with others in one filter")


def _shown(scope: InternalScope, row: Any) -> dict[str, Any]:
    return {"scope": scope, "name": row.name, "did_type": row.did_type.name, "bytes": row.bytes, "length": row.length}
