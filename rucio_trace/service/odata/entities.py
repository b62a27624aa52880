"""A trace as the Traceability Service of 2021 shows it: flat, with the product's attributes as further fields."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any, Final

from rucio_trace.statement import format_time

if TYPE_CHECKING:
    from rucio_trace.store.records import Stored

__all__ = ["FIELDS", "entity", "moment"]

FIELDS: Final = {
    "id": "Edm.String",
    "date": "Edm.DateTimeOffset",
    "eventType": "Edm.String",
    "name": "Edm.String",
    "size": "Edm.Int64",
    "hash": "Edm.String",
    "hashAlgo": "Edm.String",
    "hashList": "Collection(Edm.String)",
    "signature": "Edm.String",
    "signatureAlgo": "Edm.String",
    "publicKey": "Edm.String",
    "publicKeyFingerprint": "Edm.String",
    "serviceContext": "Edm.String",
    "serviceType": "Edm.String",
    "serviceProvider": "Edm.String",
    "referenceId": "Edm.String",
}
"""Those that every trace has; what else an entity holds are attributes of its product."""


def moment(stored: Stored) -> str:
    """When it happened; of a trace that does not say, when it was registered."""
    return stored.trace.statement.time or format_time(stored.registered_at)


def entity(stored: Stored) -> dict[str, Any]:
    """Algorithms have our names. `referenceId` is the trace that this one withdraws, or that a copy was made from.

    There is no public key apart from the certificate, whose SHA-256 is the fingerprint. An attribute never takes the
    place of a field.
    """
    trace, s = stored.trace, stored.trace.statement
    service = s.service
    return dict(s.attributes or {}) | {
        "id": stored.id,
        "date": moment(stored),
        "eventType": str(s.event),
        "name": s.name,
        "size": s.size,
        "hash": s.hash,
        "hashAlgo": s.hash_algorithm or trace.claimed_hash_algorithm,
        "hashList": [f"{content.path}:{content.hash}" for content in s.contents or ()],
        "signature": base64.b64encode(trace.signature).decode("ascii"),
        "signatureAlgo": trace.algorithm,
        "publicKey": None,
        "publicKeyFingerprint": hashlib.sha256(trace.certificate).hexdigest(),
        "serviceContext": service.context if service else None,
        "serviceType": service.type if service else None,
        "serviceProvider": service.provider if service else None,
        "referenceId": s.revokes or (s.source.trace if s.source else None),
    }
