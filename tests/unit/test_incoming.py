"""Files of traces, cut into traces: in pieces of any size, of any length, whatever is wrong with some of them."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from authority import Authority, declared, made
from hypothesis import given
from hypothesis import strategies as st

from rucio_trace.envelope import dumps, parse_traces, to_json
from rucio_trace.errors import Malformed
from rucio_trace.exchange import incoming
from rucio_trace.exchange.incoming import read_traces
from rucio_trace.faults import MessageUnreadable
from rucio_trace.strictjson import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace.envelope import Trace

CDSE = Path(__file__).parent.parent / "vectors" / "cdse"
SIGNER = Authority.root().issue().signer
HOSTILE = made(SIGNER, attributes={"a": ']}"\\', "b": "\\\\\\", "c": "}{][,\u2028", "d": '\\"'})
TEXT = dumps([made(SIGNER), HOSTILE, declared(SIGNER), *parse_traces((CDSE / "12-inputs.json").read_bytes())]).encode()
TRACES = parse_traces(TEXT)


def read(text: bytes, size: int = 1 << 20) -> list[Trace]:
    pieces = (text[start : start + size] for start in range(0, len(text), size))
    return [trace for batch in read_traces(pieces) for trace in batch]


@given(st.integers(1, 400))
def test_the_size_of_the_pieces_never_matters(size: int) -> None:
    assert read(TEXT, size) == TRACES


def test_white_space_and_line_ends_are_nothing() -> None:
    text = json.dumps(json.loads(TEXT), indent=2).encode()
    for size in (1, 7, 1 << 20):
        assert read(b"\r\n\t " + text + b"\n\n", size) == TRACES
    assert read(b" [ ] ") == []


@pytest.mark.parametrize("path", sorted(CDSE.glob("*.json")), ids=lambda p: p.stem)
def test_what_the_field_writes_is_read(path: Path) -> None:
    text = path.read_bytes()
    assert read(text, 100) == parse_traces(text)


def test_an_answer_of_the_service_is_read_in_each_of_its_forms() -> None:
    one = to_json(TRACES[-1]) | {"obsolescence": None}
    one["product"]["contents"] = None
    for answer in (one, [one], {"traces": [one]}, {"success": True, "error": None, "traces": [one]}):
        [found] = read(json.dumps(answer).encode())
        assert found == TRACES[-1]
    [registration] = read(b'{"success": true, "traces": [{"success": true, "message": "queued"}]}')
    assert registration.faults
    with pytest.raises(Malformed, match="product"):
        read(b'{"detail": [{"loc": ["path"], "msg": "no such trace", "type": "value_error"}]}')


@pytest.mark.parametrize(
    "broken",
    [b"", b"null", b"7", b"{}", b'{"a": 1]', b"{]", b'{"a": 1, "a": 2}', b"[[]]", b'{"product": {"size": NaN}}', b"'"],
)
def test_one_that_cannot_be_read_costs_itself_alone(broken: bytes) -> None:
    parts = [json.dumps(item).encode() for item in json.loads(TEXT)]
    text = b"[" + b",".join([parts[0], broken, *parts[1:]]) + b"]"
    found = read(text, 50)
    assert [trace for trace in found if not trace.faults] == TRACES
    [bad] = [trace for trace in found if trace.faults]
    assert isinstance(bad.faults[0], MessageUnreadable)


@pytest.mark.parametrize("end", [b"", b",", b"]]", b"] []", b']"'])
def test_a_text_that_ends_too_soon_or_too_late_gives_what_it_has_and_an_error(end: bytes) -> None:
    found: list[Trace] = []

    def collect() -> None:
        for batch in read_traces([TEXT[:-1] + end]):
            found.extend(batch)

    with pytest.raises(Malformed):
        collect()
    complete = len(TRACES) - (not end)  # whether the last one was cut off cannot be known
    assert found == TRACES[:complete]


@pytest.mark.parametrize("text", [b"", b" ", b"nonsense", b"7", b'"[]"', b"null", b"\xef\xbb\xbf[]", b"\x1f\x8b\x08"])
def test_what_is_no_text_of_traces_is_refused(text: bytes) -> None:
    with pytest.raises(Malformed):
        read(text)


def test_one_that_is_too_long_costs_itself_alone_and_no_memory() -> None:
    def long_text() -> Iterator[bytes]:
        yield TEXT[:-1] + b',{"product":{"name":"'
        for _ in range(64):
            yield b"x" * (MAX_BYTES // 8)
        yield b'"}},' + TEXT[1:]

    tracemalloc.start()
    found = [trace for batch in read_traces(long_text()) for trace in batch]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [not trace.faults for trace in found] == [True] * 4 + [False] + [True] * 4
    assert peak < 4 * MAX_BYTES
    with pytest.raises(Malformed, match="at most"):
        read(b'{"product":{"name":"' + b"x" * MAX_BYTES + b'"}}')


def test_a_long_file_comes_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "BATCH_TRACES", 3)
    assert [len(batch) for batch in read_traces([TEXT[:-1] + b"," + TEXT[1:]])] == [3, 3, 2]
