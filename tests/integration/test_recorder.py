"""What becomes of changes in Rucio: a trace each, or a counted reason (docs/format.md, section 2). On both databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from recorder_kit import Kit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio


@pytest.fixture
def kit(rucio: EmbeddedRucio) -> Iterator[Kit]:
    kit = Kit(rucio)
    yield kit
    kit.close()


def test_an_upload_is_signed_as_create(kit: Kit) -> None:
    rse = kit.rucio.add_posix_rse("DISK")
    stored = kit.rucio.upload(rse, "file.bin", b"content")
    kit.run()
    [trace] = kit.traces()
    statement = trace.trace.statement
    assert statement.event == "CREATE"
    assert (statement.did, statement.rse, statement.size) == ("test:file.bin", "DISK", 7)
    assert statement.hashes == {"ADLER32": stored.adler32}
    assert statement.method == "read"
    assert statement.site == "SITE-A"
    assert kit.outbox == []
    assert kit.outcomes == {"expected": 1, "CREATE": 1}
    product = kit.product("file.bin")
    assert product is not None
    assert (product.status, product.proven, product.total) == ("GENUINE", 1, 1)
    assert kit.replicas("file.bin") == {"DISK": "proven"}
