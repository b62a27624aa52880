"""What `/api/v2` finds, on SQLite and on PostgreSQL."""

from __future__ import annotations

import gzip
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from samples import HOUR, START, batch, digest, line, product, trace
from service_in_process import Asked, add, asked

from rucio_trace.batch import write_lines
from rucio_trace.envelope import to_json
from rucio_trace.statement import Content, Event, Input, Source, format_time
from rucio_trace.store import read as store_read
from rucio_trace.store import search as store_search
from rucio_trace.words import MAX_WORDS, words_in, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace.statement import ProductKey

NAME = "S2A_MSIL1C_20230420T100021_N0509_R122_T33UVP.SAFE-"
API = "/api/v2"


@pytest.fixture
def service(store_url: str) -> Iterator[Asked]:
    with asked(store_url) as service:
        yield service


def ids(answer: Any) -> list[str]:
    return [found["id"] for found in answer["traces"]]


def search(service: Asked, **query: Any) -> list[str]:
    return ids(service.get(f"{API}/traces", **query))


# ------------------------------------------------------------------------------------------- search


def test_a_search_tells_records_newest_first(service: Asked) -> None:
    first, second = add(service.store, trace(), trace())
    found = service.get(f"{API}/traces")
    assert ids(found) == [second.id, first.id]
    assert found["next"] is None
    assert found["traces"][1] == {
        "id": first.id,
        "position": 1,
        "registered_at": format_time(first.registered_at),
        "trace": to_json(first.trace),
    }


def test_a_word_from_the_middle_of_a_name_finds_it(service: Asked) -> None:
    one, _other, copy = add(
        service.store,
        trace(Event.CREATE, product(1, NAME)),
        trace(Event.CREATE, product(2, "S2B_MSIL2A_20230420T100021_T31UFU")),
        trace(Event.COPY, product(1, NAME), rse="RSE-B"),
    )
    for text in ("T33UVP", "t33uvp", "33UVP", "R122 S2A", "20230420T100021 N0509"):
        assert search(service, text=text) == ([copy.id, one.id] if text != "33UVP" else []), text
    assert len(search(service, text="20230420T100021")) == 3
    assert search(service, text="t33uvp", rse="RSE-B") == [copy.id]
    assert search(service, text="R122 S2B") == []
    service.get(f"{API}/traces", 400, text="--")


def test_short_and_common_words_are_words(service: Asked) -> None:
    (found,) = add(service.store, trace(Event.CREATE, product(1, "de_the_x_of-L2-"), attributes={"é": "Où ça 7"}))
    for word in ("de", "the", "x", "of", "l2", "1", "OÙ", "ça", "7"):
        assert search(service, text=word) == [found.id], word


def test_words_of_attributes_find_the_traces_that_hold_them(service: Asked) -> None:
    key = product()
    cloudy = trace(Event.CREATE, key, attributes={"cover": {"sky": ["cloudy", 40.5]}, "orbit": 122, "nrt": True})
    plain = trace(Event.COPY, key, rse="RSE-B")
    more = trace(Event.VERIFY, key, attributes={"season": "winter", "cover": "clear"})
    add(service.store, cloudy, plain, more)
    assert search(service, text="cloudy") == [cloudy.id]
    assert search(service, text="cloudy file1 40 122") == [cloudy.id]
    assert search(service, text="winter") == [more.id]
    assert search(service, text="winter cloudy") == []
    assert search(service, text="file1") == [more.id, plain.id, cloudy.id]


def test_copies_leave_no_words(service: Asked) -> None:
    add(service.store, *(trace(Event.COPY, product(), rse=f"RSE-{n}") for n in range(5)))
    add(service.store, trace(Event.COPY, product(), rse="RSE-6"), trace(Event.CREATE, product(2)))
    with service.store._database.reading() as connection:
        rows = connection.exec_driver_sql("SELECT position FROM trace_texts ORDER BY position").scalars().all()
    assert rows == [1, 7]


def test_each_filter_leaves_the_others_out(service: Asked) -> None:
    wanted = trace(
        Event.COPY,
        product(1, "wanted"),
        rse="RSE-W",
        site="SITE-W",
        contents=(Content("member", digest("member")),),
        attributes={"orbit": 122, "mode": "IW", "tags": ["a", "b"]},
        after=3 * HOUR,
    )
    add(service.store, trace(Event.CREATE, product(2)), wanted, trace(Event.CREATE, product(3)))
    for query in (
        {"name": "wanted1"},
        {"prefix": "want"},
        {"prefix": "test:want"},
        {"did": "test:wanted1"},
        {"text": "wanted1"},
        {"digest": digest("wanted1").upper()},
        {"digest": digest("member")},
        {"content": digest("member")},
        {"rse": "RSE-W"},
        {"site": "SITE-W"},
        {"event": "COPY"},
        {"since": format_time(START + 2 * HOUR)},
        {"attribute": "orbit:122"},
        {"attribute": ["mode:IW", "orbit:122"]},
        {"attribute": "tags:b"},
    ):
        assert search(service, **query) == [wanted.id], query
        assert search(service, **query | {"event": "LOST"}) == []
    assert search(service, content=digest("wanted1")) == []
    assert search(service, attribute="mode:I") == []
    assert len(search(service, until=format_time(START + 2 * HOUR))) == 2


def test_of_one_attribute_several_values_can_be_asked_for_and_all_must_hold(service: Asked) -> None:
    attributes: list[dict[str, Any]] = [{"a": [1, 2]}, {"a": 2}, {"eo:cloud": 5, "start": "2023-04-20T10:00:21Z"}]
    both, one, colons = add(
        service.store, *(trace(Event.CREATE, product(n), attributes=each) for n, each in enumerate(attributes))
    )
    assert search(service, attribute=["a:2", "a:1"]) == [both.id]
    assert search(service, attribute=["a:1", "a:2"]) == [both.id]
    assert search(service, attribute="a:2") == [one.id, both.id]
    assert search(service, attribute=["eo:cloud:5", "start:2023-04-20T10:00:21Z"]) == [colons.id]


def test_a_long_prefix_finds_no_other_names(service: Asked) -> None:
    long = "n" * 255
    made = add(service.store, *(trace(Event.CREATE, product(n, long)) for n in (1, 2)))
    assert search(service, prefix=f"{long}2") == [made[1].id]
    assert search(service, prefix=f"test:{long}2") == [made[1].id]
    assert len(search(service, prefix=long)) == 2


def test_words_of_the_name_are_kept_before_those_of_attributes() -> None:
    many = {"words": [f"a{n}" for n in range(1_200)]}
    assert words_in("Zulu Yankee") <= words_of("Zulu Yankee", many)
    assert len(words_of("Zulu Yankee", many)) == MAX_WORDS


def test_what_is_no_filter_is_refused_by_name(service: Asked) -> None:
    for query, code in (
        ({"event": "MOVE"}, 422),
        ({"limit": 1001}, 422),
        ({"limit": 0}, 422),
        ({"since": "2026-01-01T00:00:00"}, 422),
        ({"since": "9999-12-31T23:59:59-14:00"}, 400),
        ({"until": "0001-01-01T00:00:00+14:00"}, 400),
        ({"digest": "xyz"}, 422),
        ({"attribute": "orbit"}, 400),
        ({"cursor": "?"}, 400),
        ({"cursor": "LTE"}, 400),
    ):
        answer = service.get(f"{API}/traces", code, **query)
        assert next(iter(query)) in answer["detail"], answer


def test_pages_neither_repeat_nor_skip_while_traces_come_in(service: Asked) -> None:
    made = [found.id for found in add(service.store, *(trace(Event.COPY, product(n)) for n in range(10)))]
    every: list[dict[str, Any]] = [{}, {"prefix": "file"}, {"site": "SITE"}, {"text": "rse-a"}, {"status": "GENUINE"}]
    for filters in every:
        expected = [] if "text" in filters else made[::-1]
        seen: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = service.get(f"{API}/traces", limit=3, **filters, **({"cursor": cursor} if cursor else {}))
            seen += ids(page)
            cursor = page["next"]
            add(service.store, trace(Event.DELETE, product(99, "other")))
        assert [one for one in seen if one in made] == expected, filters


def test_a_search_without_an_index_is_bounded_and_goes_on(service: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_search, "MAX_LOOKED_AT", 10)
    monkeypatch.setattr(store_search, "_ROWS_AT_ONCE", 5)
    (wanted,) = add(service.store, trace(site="FAR"))
    add(service.store, *(trace() for _ in range(25)))
    pages = [service.get(f"{API}/traces", site="FAR")]
    while pages[-1]["next"] is not None:
        pages.append(service.get(f"{API}/traces", site="FAR", cursor=pages[-1]["next"]))
    assert [ids(page) for page in pages] == [[], [], [wanted.id]]


# -------------------------------------------------------------------------------------- many at once


def test_many_are_found_at_once_oldest_first_and_in_portions(service: Asked) -> None:
    made = add(service.store, *(trace(Event.COPY, product(n)) for n in range(6)))
    for kind, values in (
        ("ids", [found.id for found in made]),
        ("names", [f"file{n}" for n in range(6)]),
        ("dids", [f"test:file{n}" for n in range(6)]),
        ("digests", [digest(f"file{n}") for n in range(6)]),
    ):
        body: dict[str, Any] = {kind: [*values, values[0]], "limit": 4}
        first = service.post(f"{API}/traces/query", body)
        rest = service.post(f"{API}/traces/query", body | {"after": first["next"]})
        assert [ids(first), ids(rest), rest["next"]] == [
            [found.id for found in made[:4]],
            [found.id for found in made[4:]],
            None,
        ]
    (archive,) = add(service.store, trace(contents=(Content("a", digest("member")),)))
    assert ids(service.post(f"{API}/traces/query", {"contents": [digest("member")]})) == [archive.id]
    service.post(f"{API}/traces/query", {"ids": [], "names": []}, 422)
    service.post(f"{API}/traces/query", {"id": []}, 422)
    assert service.post(f"{API}/traces/query", {"names": ["\udcff", "nul\0"]}) == {"traces": [], "next": None}


def test_a_question_may_be_packed_and_must_not_be_too_large(service: Asked) -> None:
    (made,) = add(service.store, trace())
    packed = gzip.compress(json.dumps({"ids": [made.id]}).encode())
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    answer = service.client.post(f"{API}/traces/query", content=packed, headers=headers)
    assert ids(answer.json()) == [made.id]
    bomb = gzip.compress(b" " * 20_000_000)
    assert service.client.post(f"{API}/traces/query", content=bomb, headers=headers).status_code == 413
    assert service.client.post(f"{API}/traces/query", content=b"{", headers=headers).status_code == 400


# -------------------------------------------------------------------------------------------- products


def test_the_history_of_a_name_has_its_generations(service: Asked) -> None:
    old, new = product(), product(generation=START + HOUR)
    created = trace(Event.CREATE, old)
    add(service.store, created, trace(Event.DELETE, old), trace(Event.COPY, new, after=2 * HOUR))
    first, second = service.get(f"{API}/history", did="test:file1")["products"]
    assert (first["status"], first["replicas"], len(first["traces"])) == ("PENDING", "0/0", 2)
    assert (second["status"], second["replicas"]) == ("GENUINE", "1/1")
    assert second["product"] == {"rucio": "RUCIO", "vo": "def", "did": "test:file1", "generation": new.generation}
    assert service.get(f"{API}/history", did="test:none") == {"products": []}
    service.get(f"{API}/history", 422, did="none")


def test_products_are_told_with_lines_and_with_those_who_may_have_joined(service: Asked) -> None:
    key = product()
    before = trace(Event.CREATE, None, rucio=None, did=None, generation=None, rse=None)
    arrived = trace(Event.COPY, key, source=Source(None, before.id))
    lines = [line(key), line(product(2))]
    listed = batch(lines)
    add(service.store, before, arrived, listed, lists={listed.id: write_lines(lines)})
    body = {"products": [{"rucio": "RUCIO", "did": k.did, "generation": k.generation} for k in (key, product(3))]}
    answer = service.post(f"{API}/products", body)
    known, unknown = answer["products"]
    assert ids(known) == [arrived.id]
    assert [s["id"] for s in answer["strangers"]] == [before.id]
    (told,) = known["lines"]
    assert (told["batch"]["id"], told["index"], told["position"], told["stands"]) == (listed.id, 0, 3, True)
    assert told["line"] == {
        "did": key.did,
        "generation": key.generation,
        "digest": lines[0].digest,
        "time": lines[0].time,
    }
    assert (unknown["traces"], unknown["lines"]) == ([], [])
    answer = service.client.get(f"{API}/lists/{listed.id}")
    assert answer.content == write_lines(lines)
    service.get(f"{API}/lists/{arrived.id}", 404)


def test_evidence_is_whole_or_not_given(service: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    created = trace(Event.CREATE, product())
    withdrawn = trace(Event.REVOKE, product(), revokes=created.id)
    add(service.store, created, withdrawn, trace(Event.CREATE, product(2)))
    asked_for = {"hashes": {"SHA256": digest("file1")}, "names": ["another"]}
    assert ids(service.post(f"{API}/evidence", asked_for)) == [created.id, withdrawn.id]
    assert ids(service.post(f"{API}/evidence", {"did": "test:file1"})) == [created.id, withdrawn.id]
    monkeypatch.setattr("rucio_trace.store.evidence.MAX_TRACES", 1)
    assert "did" in service.post(f"{API}/evidence", asked_for, 413)["detail"]


def test_a_lineage_is_what_the_command_prints(service: Asked) -> None:
    raw = trace(Event.CREATE, product(1), rse=None)
    made = trace(Event.CREATE, product(2), rse=None, inputs=(Input("file1", digest("file1")),))
    add(service.store, raw, made)
    up = service.get(f"{API}/lineage", did="test:file2")
    assert (up["product"], up["direction"], up["complete"]) == (digest("file2"), "up", True)
    assert {p["did"]: p["inputs"] for p in up["products"]} == {"test:file2": [digest("file1")], "test:file1": []}
    down = service.get(f"{API}/lineage", digest=digest("file1"), direction="down")
    assert {p["did"] for p in down["products"]} == {"test:file1", "test:file2"}
    service.get(f"{API}/lineage", 404, digest=digest("nobody's"))
    service.get(f"{API}/lineage", 404, did="test:none")
    service.get(f"{API}/lineage", 400)


# ------------------------------------------------------------------------------------------ what is new


def test_changes_are_followed_from_position_to_position(service: Asked) -> None:
    add(service.store, *(trace(Event.COPY, product(n)) for n in range(5)))
    first = service.get(f"{API}/changes", limit=3)
    rest = service.get(f"{API}/changes", after=first["next"], limit=3)
    assert [first["next"], rest["next"], len(rest["traces"])] == [3, 5, 2]
    assert service.get(f"{API}/changes", after=5) == {"traces": [], "next": 5}
    declared = trace(Event.CREATE, product(7), rse=None)
    add(service.store, declared, trace(Event.COPY, product(8)))
    of_products = service.get(f"{API}/changes", after=0, products=True)
    assert (ids(of_products), of_products["next"]) == ([declared.id], 7)


def test_who_waits_for_changes_is_told_when_there_are_some(service: Asked) -> None:
    import threading

    late = trace()
    timer = threading.Timer(0.7, lambda: service.store.register([late], trust=None))
    timer.start()
    assert ids(service.get(f"{API}/changes", wait=20)) == [late.id]
    timer.join()
    assert service.get(f"{API}/changes", after=1, wait=0.2) == {"traces": [], "next": 1}
    service.get(f"{API}/changes", 422, wait=61)


def test_many_who_wait_look_at_the_store_once_for_all() -> None:
    import asyncio

    from rucio_trace.service.native.feed import Head

    looks = 0

    def position() -> int:
        nonlocal looks
        looks += 1
        return 1 if looks > 1 else 0

    async def wait() -> list[bool]:
        head = Head(position)
        return await asyncio.gather(*(head.beyond(0, 10) for _ in range(500)), head.beyond(5, 1.2))

    assert asyncio.run(wait()) == [True] * 500 + [False]
    assert looks == 2


def test_statistics_are_counted_as_traces_come(service: Asked) -> None:
    assert service.get(f"{API}/statistics") == {
        "traces": 0,
        "events": {},
        "rses": {},
        "position": 0,
        "first_registered": None,
        "last_registered": None,
    }
    first, *_, last = add(service.store, *(trace(Event.COPY, product(n), rse=f"RSE-{n % 2}") for n in range(4)))
    add(service.store, trace(Event.CREATE, product(9), rse=None), provider="SECRET")
    service.store.register([first.trace], trust=None)
    found = service.get(f"{API}/statistics")
    assert (found["traces"], found["events"], found["rses"]) == (4, {"COPY": 4}, {"RSE-0": 2, "RSE-1": 2})
    assert found["first_registered"] == format_time(first.registered_at)
    assert found["last_registered"] == format_time(last.registered_at)
    assert service.get(f"{API}/statistics", token="audit")["events"] == {"COPY": 4, "CREATE": 1}


# ------------------------------------------------------------------------------------- what is private


def test_what_is_private_does_not_exist_for_others(service: Asked) -> None:
    key = product(1, "SECRET_NAME_")
    raw = trace(Event.CREATE, product(5), rse=None)
    lines = [line(key)]
    hidden = trace(Event.CREATE, key, rse=None, attributes={"word": "hush"}, inputs=(Input("x", digest("file5")),))
    listed = batch(lines)
    add(service.store, hidden, listed, provider="SECRET", lists={listed.id: write_lines(lines)})
    public, _ = add(service.store, trace(Event.COPY, key), raw)
    whole = {"rucio": key.rucio, "did": key.did, "generation": key.generation}

    def seen(token: str | None) -> list[Any]:
        known = service.post(f"{API}/products", {"products": [whole]}, token=token)["products"][0]
        down = service.get(f"{API}/lineage", token=token, digest=digest("file5"), direction="down")
        return [
            hidden.id in ids(service.get(f"{API}/traces", token=token, did=key.did)),
            hidden.id in ids(service.get(f"{API}/traces", token=token, text="hush")),
            hidden.id in ids(service.post(f"{API}/traces/query", {"ids": [hidden.id]}, token=token)),
            hidden.id in ids(service.get(f"{API}/history", token=token, did=key.did)["products"][0]),
            hidden.id in ids(known),
            bool(known["lines"]),
            hidden.id in ids(service.post(f"{API}/evidence", {"did": key.did}, token=token)),
            len(down["products"]) == 2,
            hidden.id in ids(service.get(f"{API}/changes", token=token)),
            service.get(f"{API}/statistics", token=token)["traces"] == 4,
            service.client.get(
                f"{API}/lists/{listed.id}", headers={"Authorization": f"Bearer {token}"} if token else {}
            ).status_code
            == 200,
        ]

    assert seen(None) == [False] * 11
    assert seen("secret") == [True] * 11
    assert seen("audit") == [True] * 11
    assert search(service, did=key.did) == [public.id]
    service.get(f"{API}/traces", 401, token="wrong")


def test_hidden_traces_do_not_count_as_too_much_evidence(service: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rucio_trace.store.evidence.MAX_TRACES", 2)
    add(service.store, *(trace(Event.COPY, product(), rse=f"R{n}") for n in range(5)), provider="SECRET")
    (public,) = add(service.store, trace(Event.CREATE, product()))
    assert ids(service.post(f"{API}/evidence", {"did": "test:file1"})) == [public.id]
    service.post(f"{API}/evidence", {"did": "test:file1"}, 413, token="secret")


def test_statistics_of_an_older_store_are_counted_when_it_is_migrated(empty_url: str) -> None:
    from alembic import command
    from alembic.config import Config

    from rucio_trace.store import Store
    from rucio_trace.store.database import Database

    with asked(empty_url) as service:
        made = add(service.store, trace(Event.CREATE, product(1, NAME), attributes={"mode": "winter"}), trace())
        before = service.get(f"{API}/statistics")
    with Database(empty_url).writing() as connection:
        config = Config()
        config.set_main_option("script_location", "rucio_trace.store:migrations")
        config.attributes["connection"] = connection
        command.downgrade(config, "0004")
    with asked(empty_url) as service:
        while service.store.index():
            pass
        assert service.get(f"{API}/statistics") == before
        assert search(service, text="t33uvp winter") == [made[0].id]
        assert isinstance(service.store, Store)
        (later,) = add(service.store, trace(Event.COPY, product(1, NAME), after=timedelta(hours=2)))
        assert search(service, text="t33uvp") == [later.id, made[0].id]


def test_a_word_is_found_by_an_index(service: Asked) -> None:
    from sqlalchemy import select

    from rucio_trace.store import Filters
    from rucio_trace.store.tables import traces

    key = product(7, NAME)
    made = [trace(Event.COPY, key) for _ in range(3)]
    service.store.register([*made, *(trace(Event.CREATE, product(n, "S2B_")) for n in range(1_000))], trust=None)
    kind = service.store._database.kind
    with service.store._database.writing() as connection:
        connection.exec_driver_sql("ANALYZE")
    condition = Filters(text="t33uvp").condition(kind)
    query = select(traces.c.position).where(condition).order_by(traces.c.position.desc()).limit(500)
    with service.store._database.reading() as connection:
        compiled = query.compile(connection, compile_kwargs={"render_postcompile": True})
        named: Any = compiled.construct_params()
        how, values = "EXPLAIN QUERY PLAN", tuple(named[name] for name in compiled.positiontup or ())
        if kind == "postgresql":
            how, values = "EXPLAIN", named
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # so few rows are read faster without an index
        plan = "\n".join(str(tuple(row)) for row in connection.exec_driver_sql(f"{how} {compiled}", values))
    assert "trace_words" in plan if kind == "sqlite" else "trace_texts_words" in plan, plan
    assert "name_position" in plan, plan
    assert "Seq Scan on traces" not in plan, plan
    assert search(service, text="t33uvp") == [one.id for one in reversed(made)]


# ------------------------------------------------------------------------------------------ bounds


def test_pages_end_early_where_traces_are_long_and_lose_none(service: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    key = product()
    made = [trace(Event.CREATE, key), *(trace(Event.OBSOLETE, key) for _ in range(5))]
    add(service.store, *made)
    expected = [each.id for each in made]
    bound = 2 * max(len(each.message) for each in made) - 1
    monkeypatch.setattr(store_read, "PAGE_CHARACTERS", bound)
    monkeypatch.setattr(store_search, "PAGE_CHARACTERS", bound)
    pages: list[list[str]] = []
    answer = service.get(f"{API}/traces")
    while True:
        pages.append(ids(answer))
        if answer["next"] is None:
            break
        answer = service.get(f"{API}/traces", cursor=answer["next"])
    assert [id_ for page in pages for id_ in page] == expected[::-1]
    assert max(map(len, pages)) <= 3
    for products in (False, True):
        found: list[str] = []
        after = 0
        while after < len(made):
            answer = service.get(f"{API}/changes", after=after, products=products)
            assert 0 < len(answer["traces"]) <= 3
            found, after = found + ids(answer), answer["next"]
        assert found == expected[products:], "the creation speaks of a replica"
    found, after = [], 0
    while after is not None:
        answer = service.post(f"{API}/traces/query", {"ids": expected, "after": after})
        found, after = found + ids(answer), answer["next"]
    assert found == expected
    assert "ask for less" in service.get("/trace-api/Traces", 400)["error"]["message"]
    assert service.get("/trace-api/Traces", **{"$top": 1})["value"]


def test_what_has_no_pages_is_told_whole_or_not_at_all(service: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be it of many traces or of long ones, also where a single one is the product's own and others joined it."""
    key, joined = product(1), product(2)
    outside = trace(Event.CREATE, joined, rucio=None, did=None, generation=None, rse=None)
    made = [trace(Event.CREATE, key), trace(key=key, rse="RSE-B")]
    made += [outside, trace(key=joined, source=Source(None, outside.id))]
    add(service.store, *made)
    bounds = {"MAX_WHOLE": 2, "WHOLE_CHARACTERS": max(len(each.message) for each in made) + 1}

    def answers(of: ProductKey, status: int) -> list[Any]:
        asked_of = {"rucio": of.rucio, "vo": of.vo, "did": of.did, "generation": of.generation}
        return [
            service.get(f"{API}/history", status, did=of.did),
            service.post(f"{API}/products", {"products": [asked_of]}, status),
            service.post(f"{API}/evidence", {"did": of.did}, status),
        ]

    for of in (key, joined):
        assert len(answers(of, 200)) == 3
        for bound, most in bounds.items():
            with monkeypatch.context() as bounded:
                bounded.setattr(store_read, bound, most)
                assert all(f"at most {most} " in answer["detail"] for answer in answers(of, 413))
    with monkeypatch.context() as bounded:
        bounded.setattr(store_read, "WHOLE_CHARACTERS", 100)
        service.get(f"{API}/lineage", 413, digest=digest(key.name))
        service.get(f"{API}/lineage", 413, did=key.did)


def test_a_batch_is_told_with_each_of_its_lines_unless_that_makes_too_long_an_answer(
    service: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [product(1), product(2), product(3)]
    verify = batch(lines := [line(key) for key in keys])
    add(service.store, verify, lists={verify.id: write_lines(lines)})
    of = [{"rucio": key.rucio, "vo": key.vo, "did": key.did, "generation": key.generation} for key in keys]
    monkeypatch.setattr("rucio_trace.service.native.products.WHOLE_CHARACTERS", 2 * len(verify.message))
    found = service.post(f"{API}/products", {"products": of[:2]})["products"]
    assert [each["lines"][0]["batch"]["id"] for each in found] == [verify.id] * 2
    assert "signed texts" in service.post(f"{API}/products", {"products": of}, 413)["detail"]
    assert len(service.post(f"{API}/products", {"products": of, "lines": False})["products"]) == 3


def test_how_far_the_index_is_behind_is_told(service: Asked) -> None:
    add(service.store, trace())
    rows = service.client.get("/metrics").text.splitlines()
    assert [row for row in rows if row.startswith("traceability_store_index_lag_seconds ")]
