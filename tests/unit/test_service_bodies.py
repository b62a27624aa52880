"""Bodies: unpacked piece by piece, in bounds, and refused where they are cut or are something else."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import tracemalloc
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from samples import trace

from rucio_trace.config import Service as ServiceSettings
from rucio_trace.envelope import to_json
from rucio_trace.errors import TraceabilityError
from rucio_trace.service.bodies import BODIES_HELD, Bounded, unpacked
from rucio_trace.service.items import MAX_ITEMS, read_items
from rucio_trace.service.problems import BadRequest, Busy, TooLarge, UnknownEncoding

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

PACK = {"gzip": gzip.compress, "zstd": zstandard.compress, "identity": bytes, "X-GZIP": gzip.compress}
MIB = 1024**2


@given(st.lists(st.binary(max_size=2_000), max_size=5), st.sampled_from(sorted(PACK)))
def test_unpacking_gives_what_was_packed(parts: list[bytes], encoding: str) -> None:
    """Also of several members or frames, one after the other."""
    packed = b"".join(PACK[encoding](part) for part in parts)
    assert b"".join(unpacked(packed, encoding, 100_000)) == b"".join(parts)


def test_large_content_comes_in_small_pieces() -> None:
    content = b"0123456789" * MIB
    for encoding, pack in PACK.items():
        pieces = list(unpacked(pack(content), encoding, 100 * MIB))
        assert b"".join(pieces) == content
        assert max(map(len, pieces)) <= 9 * MIB


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_cut_or_altered_body_is_refused(encoding: str) -> None:
    packed = PACK[encoding](json.dumps(list(range(200))).encode())
    for length in range(1, len(packed)):
        with pytest.raises(BadRequest):
            list(unpacked(packed[:length], encoding, MIB))
    with pytest.raises(BadRequest):
        list(unpacked(packed + b"x", encoding, MIB))


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_bomb_costs_no_more_than_the_bound(encoding: str) -> None:
    if encoding == "gzip":
        packer = zlib.compressobj(9, wbits=31)
        packed = b"".join(packer.compress(bytes(MIB)) for _ in range(128)) + packer.flush()
    else:
        packed = zstandard.ZstdCompressor().compress(bytes(128 * MIB))
    tracemalloc.start()
    with pytest.raises(TooLarge):
        for _ in unpacked(packed, encoding, 4 * MIB):
            pass
    assert tracemalloc.get_traced_memory()[1] < 40 * MIB
    tracemalloc.stop()


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_members_that_hold_nothing_are_bounded_too(encoding: str) -> None:
    """Each costs more than its bytes, and 16 MiB are a million of them."""
    nothing = PACK[encoding](b"")
    assert b"".join(unpacked(nothing * 1_000, encoding, MIB)) == b""
    with pytest.raises(TooLarge, match="members"):
        for _ in unpacked(nothing * 500_000, encoding, MIB):
            pass


def test_a_window_that_is_larger_than_the_encoding_allows_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(BadRequest):
        list(unpacked(packer.compress(b"[]") + packer.flush(), "zstd", MIB))


@pytest.mark.parametrize("encoding", ["br", "gzip,gzip", "deflate", "", "x" * 1000])
def test_other_encodings_are_refused(encoding: str) -> None:
    if encoding:
        with pytest.raises(UnknownEncoding):
            list(unpacked(b"[]", encoding, MIB))
    assert b"".join(unpacked(b"[]", None, MIB)) == b"[]"


# ----------------------------------------------------------------------------------------- items


def items_of(content: bytes, size: int = 1 << 20, *, is_json: bool = False, scope: str | None = None) -> list[str]:
    pieces = (content[start : start + size] for start in range(0, len(content), size))
    return [item.trace.id for item in read_items(pieces, is_json=is_json, scope=scope)]


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_an_array_and_lines_say_the_same_in_pieces_of_any_size(size: int) -> None:
    made = [trace() for _ in range(3)]
    texts = [json.dumps(to_json(each)).encode() for each in made]
    ids = [each.id for each in made]
    assert items_of(b" \n[" + b" ,\n".join(texts) + b"]\n", size) == ids
    assert items_of(b"\n\r\n".join(texts), size) == ids
    assert items_of(b"\n" + b"\n".join(texts) + b"\n", size) == ids
    assert items_of(json.dumps(to_json(made[0]), indent=1).encode(), size, is_json=True) == ids[:1]


def test_nothing_holds_no_items() -> None:
    for content in (b"", b" \n ", b"[]", b" [ ] "):
        assert items_of(content) == []
        assert items_of(content, is_json=True) == []


def test_an_unreadable_item_costs_itself_alone() -> None:
    made = trace()
    text = json.dumps(to_json(made)).encode()
    deep = b'{"trace":' * 10_000 + b"1" + b"}" * 10_000
    for bad in (b"{", b"1", b"null", b'"x"', b"{}", b'{"trace": 3, "list": "!"}', b'{"trace": {}, "x": 1}', deep):
        assert made.id in items_of(bad + b"\n" + text)
        if bad != b"{":
            assert made.id in items_of(b"[" + bad + b"," + text + b"]")


@given(st.binary(max_size=200), st.booleans())
def test_whatever_comes_only_our_errors_escape(content: bytes, is_json: bool) -> None:
    with contextlib.suppress(TraceabilityError):
        items_of(content, 16, is_json=is_json)


def test_too_many_items_are_refused() -> None:
    with pytest.raises(TooLarge):
        items_of(b"{}\n" * (MAX_ITEMS + 1))


def test_if_not_one_item_can_be_read_the_request_is_wrong() -> None:
    with pytest.raises(BadRequest, match="at least one"):
        items_of(b"[1, 2, 3]")


def test_a_scope_is_only_kept_for_files_of_no_rucio() -> None:
    nowhere = dict.fromkeys(("rucio", "vo", "did", "generation", "rse"))
    made = [to_json(trace()), to_json(trace(**nowhere)), to_json(trace(**nowhere))]
    content = json.dumps([made[0], made[1], {"trace": made[2], "scope": "own"}]).encode()
    found = read_items(iter([content]), is_json=True, scope="given")
    assert [item.scope for item in found] == [None, "given", "own"]
    assert all(a.trace.id != b.trace.id for a, b in pairwise(found))


# ----------------------------------------------------------------------------------- many at once


def test_all_bodies_together_are_bounded_and_given_back() -> None:
    """Each is small enough, and comes slowly: together they would not fit. Questions do not shut out traces."""
    most = ServiceSettings(max_body_bytes=1024)
    codes: list[str] = []
    room = asyncio.Event()

    async def app(scope: Scope, receive: Receive, _send: Send) -> None:
        if scope["path"] == "/question":
            scope["rucio_trace.body"].is_question()
        await receive()
        codes.append("read")
        await room.wait()

    async def receive() -> Message:
        return {"type": "http.request", "body": bytes(1000), "more_body": False}

    async def send(_message: Message) -> None:
        pass

    async def main() -> None:
        bounded = Bounded(app, most)
        bounded.questions.most = BODIES_HELD * 1024
        scope: Scope = {"type": "http", "headers": [], "path": "/question"}
        waiting = [asyncio.create_task(bounded(scope, receive, send)) for _ in range(BODIES_HELD)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await bounded(scope, receive, send)
        traces = asyncio.create_task(bounded({**scope, "path": "/traces"}, receive, send))
        await asyncio.sleep(0)
        room.set()
        await traces
        await asyncio.gather(*waiting)
        await bounded(scope, receive, send)

    asyncio.run(main())
    assert codes == ["read"] * (BODIES_HELD + 2)
