"""Traces as W3C PROV, in PROV-JSON: bytes and replicas are entities, events activities, signers agents. Pure.

Bytes are one entity wherever they are (`bytes-<digest>`; where only a checksum is told, which others may share,
those of one product: `bytes-of-<hash of its key>`), a replica is a specialisation of them that begins with its
arrival. Attributes of ours stand under `rt:`. What a trace of the Traceability Service does not sign is not told as
true: only that it was claimed.

Source: PROV-JSON, W3C Member Submission of 24 April 2013; PROV-DM for what the relations mean.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

from rucio_trace import certificates
from rucio_trace.envelope import Trace
from rucio_trace.errors import Malformed
from rucio_trace.statement import STRONG, Event, Statement

__all__ = ["NAMESPACE", "document"]

NAMESPACE = "urn:rucio-trace:1:"

_ARRIVALS = (Event.CREATE, Event.COPY)
_ENDS = (Event.CORRUPT, Event.LOST, Event.DELETE)


def document(traces: Iterable[Trace]) -> dict[str, Any]:
    """A PROV-JSON document of what *traces* say; the oldest first, those without a signed time before all."""
    writer = _Writer()
    for trace in sorted(traces, key=lambda trace: (trace.statement.time or "", trace.id)):
        writer.add(trace)
    return {"prefix": {"rt": NAMESPACE}, **writer.parts}


class _Writer:
    def __init__(self) -> None:
        self.parts: dict[str, dict[str, Any]] = {}
        self._replicas: dict[tuple[object, str], str] = {}  # the living ones, by product and RSE
        self._generated: set[str] = set()

    def add(self, trace: Trace) -> None:
        s = trace.statement
        bytes_ = self._bytes(s)
        activity = self._activity(trace)
        self._relate("wasAssociatedWith", activity=activity, agent=self._agent(trace))
        if s.event is Event.CREATE and bytes_ not in self._generated:
            self._generated.add(bytes_)
            self._relate("wasGeneratedBy", entity=bytes_, activity=activity, time=s.time)
        elif s.rse is None or s.event in _ARRIVALS:
            self._relate("used", activity=activity, entity=self._origin_of(s, bytes_), time=s.time)
        for given in s.inputs or ():
            source = self._entity(f"rt:bytes-{given.hash}", {"prov:label": given.name})
            self._relate("used", activity=activity, entity=source, time=s.time)
            self._relate("wasDerivedFrom", generatedEntity=bytes_, usedEntity=source, activity=activity)
        if s.event is Event.OBSOLETE:
            self._relate("wasInfluencedBy", influencee=bytes_, influencer=activity)
        if s.revokes is not None:
            self._relate("wasInformedBy", informed=activity, informant=f"rt:event-{s.revokes}")
        if s.rse is not None and s.batch is None:
            self._look_at_replica(trace, bytes_, activity)

    def _look_at_replica(self, trace: Trace, bytes_: str, activity: str) -> None:
        s = trace.statement
        place = (s.product, s.rse or "")
        if s.event in _ARRIVALS or place not in self._replicas:
            self._replicas[place] = replica = f"rt:replica-{trace.id}"
            self._entity(replica, {"prov:type": _name("Replica"), "rt:rse": s.rse})
            self._relate("specializationOf", specificEntity=replica, generalEntity=bytes_)
        replica = self._replicas[place]
        if s.event in _ARRIVALS:
            self._relate("wasGeneratedBy", entity=replica, activity=activity, time=s.time)
            if s.event is Event.COPY:
                source = self._origin_of(s, bytes_)
                self._relate("wasDerivedFrom", generatedEntity=replica, usedEntity=source, activity=activity)
        elif s.event in _ENDS:
            self._relate("wasInvalidatedBy", entity=replica, activity=activity, time=s.time)
            del self._replicas[place]
        else:
            self._relate("used", activity=activity, entity=replica, time=s.time)

    def _origin_of(self, s: Statement, bytes_: str) -> str:
        """What a copy was made of: the replica whose trace it names, if that is told here, else the bytes."""
        replica = f"rt:replica-{s.source.trace}" if s.source else ""
        return replica if replica in self.parts["entity"] else bytes_

    def _bytes(self, s: Statement) -> str:
        told = {
            "prov:type": _name("Bytes"),
            "prov:label": s.name,
            "rt:name": s.name,
            "rt:size": {"$": str(s.size), "type": "xsd:long"},
            "rt:hash": s.hash,
            "rt:hashAlgorithm": s.hash_algorithm,
            "rt:did": s.did,
        }
        return self._entity(_bytes_name(s), told)

    def _activity(self, trace: Trace) -> str:
        s = trace.statement
        told = {
            "prov:startTime": s.time,
            "prov:endTime": s.time,
            "prov:type": _name(s.event),
            "rt:rse": s.rse,
            "rt:site": s.site,
            "rt:method": s.method,
            "rt:observed": s.observed,
            "rt:reason": s.obsolescence,
            "rt:replacedBy": s.replaced_by,
            "rt:notSigned": [f"{key}: {value}" for key, value in trace.not_signed.items()] or None,
        }
        activity = f"rt:event-{trace.id}"
        self.parts.setdefault("activity", {})[activity] = _without_none(told)
        return activity

    def _agent(self, trace: Trace) -> str:
        try:
            signer = certificates.load(trace.certificate)
        except Malformed:
            agent, told = "rt:signer-unknown", {}
        else:
            agent = f"rt:signer-{signer.fingerprint}"
            told = {"prov:label": signer.subject, "rt:subject": signer.subject}
        self.parts.setdefault("agent", {})[agent] = told
        return agent

    def _entity(self, name: str, told: dict[str, Any]) -> str:
        """Add what is new to what was told before; a second value of an attribute joins the first."""
        known = self.parts.setdefault("entity", {}).setdefault(name, {})
        for key, value in _without_none(told).items():
            values = known[key] if isinstance(known.get(key), list) else [known[key]] if key in known else []
            if value not in values:
                known[key] = [*values, value] if values else value
        return name

    def _relate(self, relation: str, **parts: str | None) -> None:
        relations = self.parts.setdefault(relation, {})
        relations[f"_:{relation}{len(relations) + 1}"] = {f"prov:{k}": v for k, v in parts.items() if v is not None}


def _bytes_name(s: Statement) -> str:
    if s.hash_algorithm in (None, *STRONG) or s.product is None:
        return f"rt:bytes-{s.hash}"
    key = "\n".join((s.product.rucio, s.product.vo, s.product.did, s.product.generation))
    return f"rt:bytes-of-{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _name(local: str) -> dict[str, str]:
    return {"$": f"rt:{local}", "type": "xsd:QName"}


def _without_none(told: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in told.items() if value is not None}
