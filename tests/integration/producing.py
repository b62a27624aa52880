"""What a producer signs before it uploads: the CREATE of a file that is in no Rucio yet."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from recorder_kit import Kit
from rucio_trace_policy.origins import set_origin

from rucio_trace.digest import DigestPass
from rucio_trace.envelope import sign, to_json
from rucio_trace.trace import Event, Statement, format_time, new_event_id, new_salt

if TYPE_CHECKING:
    from rucio_trace_sandbox.embedded import EmbeddedRucio

    from rucio_trace.envelope import Signer, Trace


def produced(signer: Signer, name: str, content: bytes, **changes: Any) -> Trace:
    """The signed CREATE of *content* under the base name *name*; *changes* are fields of the statement."""
    with DigestPass(("BLAKE3", "ADLER32", "MD5")) as digests:
        digests.update(content)
        whole = digests.finish()
    hashes = dict(whole.hashes)
    now = format_time(datetime.now(UTC))
    fields: dict[str, Any] = {
        "name": name,
        "size": len(content),
        "hash": hashes.pop("BLAKE3"),
        "hash_algorithm": "BLAKE3",
        "hashes": hashes,
        "event": Event.CREATE,
        "event_id": new_event_id(),
        "site": "PRODUCER",
        "signer": signer.fingerprint,
        "time": now,
        "observed": now,
        "method": "read",
        "salt": new_salt(),
    }
    return sign(Statement(**fields | changes), signer)


def text_of(trace: Trace) -> str:
    """The value of `trace_origin`."""
    return json.dumps(to_json(trace))


class Declaring(Kit):
    """A recorder, and a producer who says beforehand what it uploads."""

    def __init__(self, rucio: EmbeddedRucio) -> None:
        super().__init__(rucio)
        self.producer = self.authority.admit("PRODUCER", rses=(), create=("test",))
        self.declared: dict[str, Trace] = {}

    def declare(self, name: str, content: bytes, **changes: Any) -> Trace:
        """Set `trace_origin` of a file; the latest of each name is in `declared`."""
        trace = self.declared[name] = produced(self.producer.signer, name, content, **changes)
        self.set(trace, name)
        return trace

    def set(self, trace: Trace, name: str) -> None:
        with pytest.MonkeyPatch.context() as environment, self.rucio.session() as session:
            environment.setenv("RUCIO_TRACE_CONFIG", str(self.file))
            set_origin(session, self.rucio.scope, name, text_of(trace))
