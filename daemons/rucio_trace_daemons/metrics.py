"""What a daemon counts of its own work, for Prometheus; `monitoring` serves it.

Everything is in prometheus_client's own registry (docs/adr/0103). Labels are RSEs, as `Rse.label` shows them, and words
of ours: no DID, no account. Safe to call from any thread.
"""

from prometheus_client import Counter

__all__ = ["bytes_read", "reading_ended", "row_ended"]

_BYTES = Counter("traceability_read_bytes", "Bytes read from storage", ["rse"])
_READINGS = Counter(
    "traceability_readings", "Replicas read or asked for, by how that ended", ["rse", "method", "result"]
)
_OUTCOMES = Counter("traceability_outcomes", "Changes of replicas that ended, by event or reason", ["rse", "outcome"])


def bytes_read(rse: str, count: int) -> None:
    """Count bytes that came from storage; called for each piece."""
    _BYTES.labels(rse).inc(count)


def reading_ended(rse: str, method: str, result: str = "ok") -> None:
    """Count a replica that was proven by `read` or `storage`; *result* is `ok` or the class of the error."""
    _READINGS.labels(rse, method, result).inc()


def row_ended(rse: str, outcome: str) -> None:
    """Count a change (or a replica that an audit looked at) that ended in a trace of that event, or for that reason."""
    _OUTCOMES.labels(rse, outcome).inc()
