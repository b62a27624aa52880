"""Verification on one core: from JSON to an accepted trace, beside the bare signature check that nobody can avoid.

Of 190 microseconds the signature takes 80, JSON 75 (a third of it for the hook that sees duplicate keys), the depth
20, and reading and comparing the keys the rest. Members of an archive are checked all at once (`fields._plain`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.harness import Row, interleaved
from benchmarks.signed import creations, signer, trust
from rucio_trace.envelope import dumps, parse_traces
from rucio_trace.verify import check_trace

if TYPE_CHECKING:
    from collections.abc import Iterator

TRACES = 1_000
TARGET = 4_000  # traces a second


def rows() -> Iterator[Row]:
    made = creations(0, TRACES)
    texts = [dumps([trace]).encode() for trace in made]
    anchors, now = trust(), datetime.now(UTC)
    key = x509.load_der_x509_certificate(signer().certificate).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    signed = [(trace.signature, trace.message.encode()) for trace in made]
    algorithm = ec.ECDSA(hashes.SHA256())

    def ours() -> None:
        for text in texts:
            (trace,) = parse_traces(text)
            check_trace(trace, anchors, now)

    def bare() -> None:
        for signature, message in signed:
            key.verify(signature, message, algorithm)

    own, other = interleaved(ours, bare)
    rate, bare_rate = TRACES / own, TRACES / other
    yield Row(
        "verify: parse, compare, chain cached, signature, 15 contents",
        f"{rate:,.0f} traces/s",
        f"{bare_rate:,.0f}/s bare P-256 checks",
        f"{own / other:.2f}",
        f">= {TARGET:,} traces/s",
        rate >= TARGET,
    )
