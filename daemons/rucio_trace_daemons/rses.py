"""What the recorder has to know of an RSE: how its replicas are proven, and what we may take from it.

RSE attributes (docs/recorder.md): `trace_method`, `trace_streams`, `trace_bytes_per_second`, `trace_digest_fresh`,
`trace_spot_check`, `trace_quiet_hours`.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rucio.common.constants import RseAttr
from rucio.common.exception import InvalidRSEExpression
from rucio.core.rse_expression_parser import parse_expression
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, RSEType
from rucio.db.sqla.session import db_session
from rucio.rse import rsemanager
from sqlalchemy import select

from rucio_trace.errors import ConfigurationError
from rucio_trace.statement import DEFAULT_VO
from rucio_trace_daemons.methods import Method

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Engine

__all__ = ["ALONE", "Rse", "Rses", "Share", "every_id", "matching"]

# An attribute set in Rucio is followed within this time.
FACTS_SECONDS = 60.0
SPOT_CHECK = 0.01


@dataclass(frozen=True, slots=True)
class Rse:
    """One RSE at this moment; its name is the one that is signed."""

    id: str
    name: str
    vo: str
    method: Method
    streams: int | None = None
    bytes_per_second: int | None = None
    digest_fresh: bool = False  # the storage reads the bytes for each digest it is asked for
    spot_check: float = SPOT_CHECK  # the share of replicas that is read although the storage answers
    quiet_hours: str | None = None  # when the auditor reads nothing here; None: as its settings say
    attributes: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def label(self) -> str:
        """What people are shown: the name, with its VO where that is not the only one."""
        return self.name if self.vo == DEFAULT_VO else f"{self.name}@{self.vo}"

    def info(self) -> Any:
        """Rucio's own settings of the RSE, from Rucio's own cache."""
        return rsemanager.get_rse_info(rse_id=self.id)

    def token(self, *, renew: bool = False) -> str | None:
        """A token for reading, where the RSE wants one and Rucio has an issuer; with *renew* none of Rucio's cache."""
        if self.attributes.get(RseAttr.OIDC_SUPPORT) is not True:
            return None
        # Late, because importing it asks the database for its configuration.
        from rucio.core.oidc import request_token
        from rucio.core.rse import determine_audience_for_rse, determine_scope_for_rse

        scope = determine_scope_for_rse(self.id, ["storage.read"])
        return request_token(determine_audience_for_rse(self.id), scope, use_cache=not renew)


@dataclass(frozen=True, slots=True)
class Share:
    """One process of several that keep to the bounds of an RSE together: number `index` of `of`."""

    index: int = 0
    of: int = 1

    def reads(self, rse: Rse) -> bool:
        """Whether this process reads from *rse*, whose streams may be fewer than the processes."""
        return rse.streams is None or self.index < rse.streams

    def bounds(self, rse: Rse) -> Rse:
        """*rse* with this process's part of its bounds."""
        readers = min(self.of, rse.streams or self.of)
        streams = rse.streams and max(1, (rse.streams + readers - 1 - self.index) // readers)
        rate = rse.bytes_per_second and max(1, rse.bytes_per_second // readers)
        return replace(rse, streams=streams, bytes_per_second=rate)


ALONE = Share()


class Rses:
    """RSEs by id, asked of Rucio's database at most once a minute. Safe to share between threads."""

    def __init__(self, engine: Engine, share: Share = ALONE) -> None:
        self._engine, self._share = engine, share
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, Rse]] = {}

    def get(self, rse_ids: Iterable[str]) -> dict[str, Rse]:
        """Those of *rse_ids* that Rucio knows, deleted RSEs included."""
        wanted = set(rse_ids)
        with self._lock:
            oldest = time.monotonic() - FACTS_SECONDS
            fresh = {i: self._known[i][1] for i in wanted & self._known.keys() if self._known[i][0] > oldest}
            if missing := wanted - fresh.keys():
                loaded = [self._share.bounds(rse) for rse in self._load(missing)]
                self._known |= {rse.id: (time.monotonic(), rse) for rse in loaded}
                fresh |= {rse.id: rse for rse in loaded}
            return fresh

    def labels(self, rse_ids: Iterable[str]) -> dict[str, str]:
        """What people are shown for each of *rse_ids*; the id itself where Rucio knows none."""
        wanted = set(rse_ids)
        known = self.get(wanted)
        return {rse_id: known[rse_id].label if rse_id in known else rse_id for rse_id in wanted}

    def _load(self, rse_ids: set[str]) -> list[Rse]:
        rse, attribute = models.RSE.__table__.c, models.RSEAttrAssociation.__table__.c
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(rse.id, rse.rse, rse.vo, rse.rse_type, rse.volatile).where(rse.id.in_(rse_ids))
            ).all()
            attributes: dict[str, dict[str, Any]] = {row.id: {} for row in rows}
            for row in connection.execute(
                select(attribute.rse_id, attribute.key, attribute.value).where(attribute.rse_id.in_(rse_ids))
            ):
                attributes[row.rse_id][row.key] = row.value
        return [_facts(row, attributes[row.id]) for row in rows]


def matching(expression: str, subject: str = "RSE expression") -> set[str]:
    """The ids of the RSEs that *expression* stands for, one at least.

    Raises:
        ConfigurationError: naming *subject*, that it is no RSE expression, or stands for none.
    """
    try:
        with db_session(DatabaseOperationType.READ) as session:
            return {rse["id"] for rse in parse_expression(expression, session=session)}
    except InvalidRSEExpression as error:
        found = f"{expression} ({str(error).rpartition('Details: ')[2]})"
        raise ConfigurationError(subject, expected="RSEs, as an RSE expression", found=found) from error


def every_id(engine: Engine) -> set[str]:
    """The ids of all RSEs there are or were."""
    with engine.connect() as connection:
        return set(connection.scalars(select(models.RSE.__table__.c.id)))


def _facts(row: Any, attributes: Mapping[str, Any]) -> Rse:
    tape = row.rse_type is RSEType.TAPE or bool(attributes.get(RseAttr.STAGING_REQUIRED))
    return Rse(
        id=row.id,
        name=row.rse,
        vo=row.vo,
        method=_method(attributes.get("trace_method"), tape=tape, volatile=bool(row.volatile)),
        streams=_positive(attributes.get("trace_streams")),
        bytes_per_second=_positive(attributes.get("trace_bytes_per_second")),
        digest_fresh=attributes.get("trace_digest_fresh") is True,
        spot_check=_share(attributes.get("trace_spot_check")),
        quiet_hours=str(quiet) if (quiet := attributes.get("trace_quiet_hours")) is not None else None,
        attributes=attributes,
    )


def _method(value: object, *, tape: bool, volatile: bool) -> Method:
    """docs/format.md, section 3: tape is never read and caches leave no trace, unless the attribute says so."""
    if value is None:
        return Method.EXCLUDED if volatile else Method.TRANSFER if tape else Method.READ
    try:
        method = Method(str(value).strip().lower())
    except ValueError:
        return Method.UNKNOWN
    return method if method in (Method.READ, Method.STORAGE, Method.TRANSFER, Method.NONE) else Method.UNKNOWN


def _share(value: object) -> float:
    """From 0 to 1; with what is no such share everything is read."""
    if value is None:
        return SPOT_CHECK
    try:
        share = float(str(value))
    except ValueError:
        return 1.0
    return share if 0.0 <= share <= 1.0 else 1.0


def _positive(value: object) -> int | None:
    """A bound; nothing, zero and what is no number leave it open."""
    try:
        number = int(str(value))
    except ValueError:
        return None
    return number if number > 0 else None
