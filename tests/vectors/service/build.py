"""Writes the traces that the service's OpenAPI document shows, and the authority that a test trusts to post them.

PYTHONPATH=tests/unit .venv/bin/python tests/vectors/service/build.py
"""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from authority import Authority, made, statement

from rucio_trace.envelope import sign, to_json
from rucio_trace.trace import Event, ProductKey, format_time

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[2] / "rucio_trace/service/native/examples.json"
SINCE = datetime(2026, 1, 1, tzinfo=UTC)
LIFE = {"since": SINCE, "until": SINCE + timedelta(days=36_500)}  # a document outlives certificates
TIME = format_time(SINCE + timedelta(days=1))


def main() -> None:
    authority = Authority.root("Example CA", **LIFE)
    signer = authority.issue("recorder of SITE-A", **LIFE).signer
    product = ProductKey("example", "def", "s2", "S2A_T33UVP.SAFE.zip", TIME)
    trace = made(signer, Event.CREATE, product=product, time=TIME, observed=TIME)
    outside = statement(signer, Event.CREATE, product=None, time=TIME, name="S2B_T32TQM.SAFE.zip", hash="b" * 64)
    item = {"trace": to_json(sign(outside, signer)), "scope": "s2"}
    EXAMPLES.write_text(json.dumps({"trace": to_json(trace), "item": item}, indent=1) + "\n")
    (HERE / "ca.pem").write_bytes(authority.pem)


if __name__ == "__main__":
    main()
