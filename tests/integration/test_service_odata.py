"""`/trace-api`, on SQLite and on PostgreSQL: what scripts of the 2021 Traceability Service ask."""

from __future__ import annotations

import base64
import hashlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from samples import HOUR, START, authority, digest, product, trace
from service_in_process import TRUST, Asked, add, asked

from rucio_trace.identity import Patterns, Trust
from rucio_trace.service.odata.filtering import parse_filter
from rucio_trace.statement import Content, Event, Service, Source, format_time
from rucio_trace.store import search as store_search

if TYPE_CHECKING:
    from collections.abc import Iterator

API = "/trace-api"


@pytest.fixture
def service(store_url: str) -> Iterator[Asked]:
    with asked(store_url) as service:
        yield service


def names(service: Asked, filter_: str, **options: Any) -> list[str]:
    answer = service.get(f"{API}/Traces", **{"$filter": filter_, "$orderby": "name"} | options)
    return [found["name"] for found in answer["value"]]


def test_a_trace_is_told_flat(service: Asked) -> None:
    (made,) = add(
        service.store,
        trace(
            Event.COPY,
            contents=(Content("a/b", digest("member")),),
            service=Service("Sentinels", "Archive", "GAEL"),
            attributes={"productType": "S2MSI1C", "cloudCover": 12.5, "id": "not this one"},
            source=Source("RSE-B", "11111111-1111-4111-8111-111111111111"),
        ),
    )
    expected = {
        "id": made.id,
        "date": made.trace.statement.time,
        "eventType": "COPY",
        "name": "file1",
        "size": 10,
        "hash": digest("file1"),
        "hashAlgo": "SHA256",
        "hashList": [f"a/b:{digest('member')}"],
        "signature": base64.b64encode(made.trace.signature).decode(),
        "signatureAlgo": "ECDSA-SHA256",
        "publicKey": None,
        "publicKeyFingerprint": hashlib.sha256(made.trace.certificate).hexdigest(),
        "serviceContext": "Sentinels",
        "serviceType": "Archive",
        "serviceProvider": "GAEL",
        "referenceId": "11111111-1111-4111-8111-111111111111",
        "productType": "S2MSI1C",
        "cloudCover": 12.5,
    }
    answer = service.get(f"{API}/Traces", **{"$filter": f"hash eq '{digest('file1')}'"})
    assert answer == {"@odata.context": "$metadata#Traces", "value": [expected]}
    answer = service.get(f"{API}/Traces", **{"$format": "json", "$filter": "name eq 'file1'"})
    assert answer["value"] == [expected]
    for key in (made.id, made.id.upper(), f"'{made.id}'"):
        assert service.get(f"{API}/Traces({key})") == {"@odata.context": "$metadata#Traces/$entity"} | expected


def test_filters_hold_what_they_say(service: Asked) -> None:
    made = [
        trace(
            Event.CREATE, product(1, "a"), size=5, after=HOUR, rse=None, attributes={"orbit": 7, "day": "2023-05-01"}
        ),
        trace(Event.COPY, product(2, "b"), size=15, after=2 * HOUR, attributes={"mode": "I'W", "on": True}),
        trace(Event.COPY, product(3, "ab"), size=25, after=3 * HOUR, service=Service(provider="ESA")),
    ]
    add(service.store, *made)
    at = format_time(START + 2 * HOUR)
    for filter_, expected in {
        "name eq 'a1'": ["a1"],
        "'a1' eq name": ["a1"],
        "name ne 'a1'": ["ab3", "b2"],
        "name gt 'a1'": ["ab3", "b2"],
        "'a1' lt name": ["ab3", "b2"],
        "name le 'ab3'": ["a1", "ab3"],
        "startswith(name,'a')": ["a1", "ab3"],
        "not startswith(name,'a')": ["b2"],
        "endswith(name,'3')": ["ab3"],
        "contains(name,'b')": ["ab3", "b2"],
        "contains(name,'')": ["a1", "ab3", "b2"],
        f"hash eq '{digest('a1')}'": ["a1"],
        f"hash eq '{digest('a1')}' or name eq 'b2'": ["a1", "b2"],
        f"hash ne '{digest('a1')}'": ["ab3", "b2"],
        f"not (hash eq '{digest('a1')}')": ["ab3", "b2"],
        "hash eq 'x'": [],
        "eventType eq 'COPY' and size gt 15": ["ab3"],
        "eventType eq 'COPY' and not (size gt 15)": ["b2"],
        "size le 15": ["a1", "b2"],
        "size eq 15.0": ["b2"],
        "size gt -1": ["a1", "ab3", "b2"],
        "size eq '15'": [],
        "size ne '15'": ["a1", "ab3", "b2"],
        f"date eq {at}": ["b2"],
        f"date ge {at[:19]}Z": ["ab3", "b2"],
        f"date lt {at[:19]}+00:00": ["a1"],
        "date gt 2020-01-01": ["a1", "ab3", "b2"],
        "date eq 'now'": [],
        f"id eq {made[0].id}": ["a1"],
        f"id eq '{made[0].id}'": ["a1"],
        "serviceProvider eq 'ESA'": ["ab3"],
        "serviceProvider eq null": ["a1", "b2"],
        "serviceProvider ne null": ["ab3"],
        "publicKey eq null and hashAlgo eq 'SHA256'": ["a1", "ab3", "b2"],
        "orbit eq 7": ["a1"],
        "orbit ge 7 and day lt 2023-06-01": ["a1"],
        "mode eq 'I''W'": ["b2"],
        "on eq true": ["b2"],
        "nothing eq null": ["a1", "ab3", "b2"],
        "name eq 'a1' and name eq 'b2'": [],
        "name eq 'a1' or name eq 'b2' and size gt 20": ["a1"],
        "(name eq 'a1' or name eq 'b2') and size gt 10": ["b2"],
        "name eq 'a1'' or ''1'' eq ''1'": [],
        "name eq 'x''); DROP TABLE traces; --'": [],
        "contains(name,'%')": [],
        "startswith(name,'_')": [],
    }.items():
        assert names(service, filter_) == expected, filter_


def test_a_time_outside_the_calendar_is_compared_as_a_text(service: Asked) -> None:
    odd = {"day": "0001-01-01T00:00:00+14:00"}
    add(service.store, trace(Event.CREATE, product(1), attributes=odd), trace(Event.CREATE, product(2)))
    assert names(service, "day gt 2020-01-01") == []
    assert names(service, "day ne 2020-01-01") == ["file1", "file2"]
    assert names(service, "day eq '0001-01-01T00:00:00+14:00'") == ["file1"]


def test_long_names_are_held_against_what_was_signed(service: Asked) -> None:
    long = "n" * 300
    add(service.store, trace(Event.CREATE, product(1, long)), trace(Event.CREATE, product(2, long)))
    assert names(service, f"name eq '{long}1'") == [f"{long}1"]
    assert names(service, f"startswith(name,'{long}2')") == [f"{long}2"]
    assert names(service, f"name ne '{long}2'") == [f"{long}1"]


def test_order_pages_count_and_selection(service: Asked) -> None:
    add(service.store, *(trace(Event.COPY, product(n), size=n % 3, after=(9 - n) * HOUR) for n in range(1, 8)))

    def numbers(**options: Any) -> str:
        found = service.get(f"{API}/Traces", **{f"${key}": value for key, value in options.items()})
        return "".join(each["name"][-1] for each in found["value"])

    assert numbers() == "7654321"
    assert numbers(orderby="name") == "1234567"
    assert numbers(orderby="name desc", top=2) == "76"
    assert numbers(orderby="date", skip=2, top=3) == "543"
    assert numbers(orderby="eventType,name", top=3, skip=1) == "234"
    assert numbers(orderby="name", filter="size eq 1", skip=1) == "47"
    assert numbers(top=0) == ""
    answer = service.get(f"{API}/Traces", **{"$count": "true", "$top": 1, "$select": "id,name,none"})
    assert answer["@odata.count"] == 7
    assert answer["value"][0].keys() == {"id", "name", "none"}
    answer = service.get(f"{API}/Traces", **{"$count": "true", "$top": 1, "$filter": "size eq 1"})
    assert answer["@odata.count"] == 3
    assert "@odata.nextLink" not in answer


def test_an_answer_without_top_links_to_what_follows(service: Asked) -> None:
    add(service.store, *(trace(Event.COPY, product(n)) for n in range(103)))
    first = service.get(f"{API}/Traces", **{"$filter": "startswith(name,'file')"})
    rest = service.get(f"{API}/{first['@odata.nextLink']}")
    assert (len(first["value"]), len(rest["value"])) == (100, 3)
    assert "@odata.nextLink" not in rest
    assert len({each["id"] for each in (*first["value"], *rest["value"])}) == 103


def test_the_last_page_within_bounds_has_no_link(service: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rucio_trace.service.odata.routes.MAX_SKIP", 1)
    add(service.store, *(trace(Event.COPY, product(n)) for n in range(103)))
    found = service.get(f"{API}/Traces", **{"$skip": "1"})
    assert (len(found["value"]), "@odata.nextLink" in found) == (100, False)


def test_what_would_look_at_everything_is_refused_and_never_a_part(
    service: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_search, "MAX_LOOKED_AT", 5)
    monkeypatch.setattr(store_search, "MAX_COUNTED", 5)
    add(service.store, *(trace(Event.COPY, product(n), size=n) for n in range(8)))
    assert names(service, "size eq 7", **{"$top": 1, "$orderby": "name desc"}) == ["file7"]
    answer = service.get(f"{API}/Traces", 400, **{"$filter": "size eq 1"})
    assert "5 traces" in answer["error"]["message"]
    assert names(service, "size eq 1 and startswith(name,'file1')") == ["file1"]
    service.get(f"{API}/Traces", 400, **{"$count": "true"})
    assert len(service.get(f"{API}/Traces")["value"]) == 8


HOSTILE = {
    "a hundred thousand parentheses": "(" * 100_000,
    "balanced parentheses": "(" * 2_000 + "name eq 'a'" + ")" * 2_000,
    "deep": "(" * 21 + "name eq 'a'" + ")" * 21,
    "many nots": "not " * 800 + "name eq 'a'",
    "many terms": " or ".join(["a eq 1"] * 400),
    "spaces": "name" + " " * 4_000 + "eq" + " 'a'",
    "an open quote": "name eq '" + "'" * 4_000,
    "another field": "name eq name",
    "numbers": "1 eq 1",
    "a huge number": f"size eq {'9' * 4_000}",
    "a long number": f"size eq {'9' * 100}",
    "a bad date": "date eq 2023-02-31",
    "a time before the calendar": "date gt 0001-01-01T00:00:00+14:00",
    "a time after the calendar": "date gt 9999-12-31T23:59:59-14:00",
    "a bad time": "date eq 2023-02-28T25:00:00Z",
    "arithmetic": "size add 1 eq 2",
    "lists": "name in ('a','b')",
    "lambdas": "hashList/any(h:h eq 'x')",
    "a collection": "hashList eq 'x'",
    "a path": "name/first eq 'x'",
    "other functions": "tolower(name) eq 'x'",
    "unknown functions": "sleep(name,'x')",
    "too few arguments": "contains(name)",
    "numbers in functions": "contains(name,1)",
    "comments": "name eq 'a' -- ",
    "a statement": "1; DROP TABLE traces",
    "nothing": "",
    "space": " ",
    "NUL": "name\0 eq 'x'",
    "geography": "name eq geography'x'",
    "a duration": "name eq duration'P1D'",
    "a name alone": "name",
}


@pytest.mark.parametrize("filter_", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_filters_are_refused_quickly(filter_: str) -> None:
    from rucio_trace.service.problems import BadRequest

    begun = time.process_time()
    if filter_.startswith("name  "):
        parse_filter(filter_)
    else:
        with pytest.raises(BadRequest, match="filter"):
            parse_filter(filter_)
    assert time.process_time() - begun < 1


def test_refusals_are_odatas(service: Asked) -> None:
    for options in (
        {"$filter": "name = 'a'"},
        {"$top": "-1"},
        {"$top": "1001"},
        {"$skip": "100001"},
        {"$orderby": "size"},
        {"$orderby": ""},
        {"$orderby": "name,"},
        {"$orderby": "name; DROP TABLE traces"},
        {"$count": "yes"},
        {"$format": "xml"},
        {"$expand": "Product"},
        {"$top": ["1", "2"]},
    ):
        answer = service.get(f"{API}/Traces", 400, **options)
        assert answer["error"].keys() == {"code", "message"}
        assert next(iter(options)) in answer["error"]["message"], answer
    assert "error" in service.get(f"{API}/Traces(00000000-0000-4000-8000-000000000000)", 404)
    assert "error" in service.get(f"{API}/Traces('; DROP TABLE traces; --)", 404)
    assert "error" in service.get(f"{API}/Traces", 401, token="wrong")
    service.store.close()


def test_quality_tells_whether_signature_and_chain_hold(service: Asked, store_url: str) -> None:
    (made,) = add(service.store, trace())
    for function in ("Datac.Quality()", "Datac.Validate()", "Validate()"):
        answer = service.get(f"{API}/Traces({made.id})/{function}")
        assert answer == {"@odata.context": "$metadata#Edm.Boolean", "value": True, "faults": []}
        service.get(f"{API}/Traces(00000000-0000-4000-8000-000000000000)/{function}", 404)
    with asked(store_url, Trust.from_anchors([])) as stranger:
        answer = stranger.get(f"{API}/Traces({made.id})/Datac.Quality()")
        assert answer["value"] is False
        assert "anchor" in answer["faults"][0]
    stale = Trust.from_anchors([authority().pem], [authority().crl(at=START, days=1)])
    with asked(store_url, stale) as undecided:
        assert undecided.get(f"{API}/Traces({made.id})/Validate()")["value"] is None
    with asked(store_url, None) as trustless:
        assert "error" in trustless.get(f"{API}/Traces({made.id})/Validate()", 503)


def test_quality_does_not_ask_what_the_signer_may_say(store_url: str) -> None:
    with asked(store_url) as service:
        (made,) = add(service.store, trace())
    (member,) = TRUST.members
    without = Trust((replace(member, rses=Patterns(())),), TRUST.revocations)
    with asked(store_url, without) as service:
        answer = service.get(f"{API}/Traces({made.id})/Datac.Quality()")
        assert (answer["value"], answer["faults"]) == (True, [])


def test_there_is_a_service_document(service: Asked) -> None:
    assert service.get(f"{API}/")["value"][0]["name"] == "Traces"
    answer = service.client.get(f"{API}/$metadata")
    assert 'Property Name="hashList"' in answer.text
    assert answer.headers["OData-Version"] == "4.0"


def test_private_traces_are_not_there(service: Asked) -> None:
    (hidden,) = add(service.store, trace(), provider="SECRET")
    for options in ({}, {"$filter": "name eq 'file1'"}, {"$filter": "size gt 1"}, {"$count": "true"}):
        answer = service.get(f"{API}/Traces", **options)
        assert answer["value"] == []
        assert answer.get("@odata.count", 0) == 0
        assert len(service.get(f"{API}/Traces", token="secret", **options)["value"]) == 1
    service.get(f"{API}/Traces({hidden.id})", 404)
    service.get(f"{API}/Traces({hidden.id})/Datac.Quality()", 404)


# ------------------------------------------------------------------------------------------ what it costs

ROWS = 20_000


def fill(service: Asked) -> None:
    """Many rows like the first: enough for a database to prefer an index."""
    add(service.store, trace(Event.CREATE, product(1, "S2A_")))
    kind = service.store._database.kind
    series, few = f"SELECT * FROM generate_series(1, {ROWS})", f"SELECT 1 UNION ALL SELECT n + 1 FROM many LIMIT {ROWS}"
    head = f"WITH many(n) AS ({series})" if kind == "postgresql" else f"WITH RECURSIVE many(n) AS ({few})"
    bytes_ = "sha256(('x' || n)::bytea)" if kind == "postgresql" else "randomblob(32)"
    rows = ("registered_at", "event", "time", "did", "generation", "rse", "revokes", "certificate", "chain", "message")
    columns = ", ".join((*rows, "signature", "provider", "claimed"))
    with service.store._database.writing() as connection:
        for into, values, of in (
            ("trace_digest_sets (id, fingerprint)", f"n + 1, {bytes_}", "many"),
            ("trace_digests (digest, digest_set, of_content)", f"{bytes_}, n + 1, false", "many"),
            (
                f"traces (position, id, name, digest_set, {columns})",
                f"position + n, 'id' || n, 'name' || n, n + 1, {columns}",
                "traces, many WHERE position = 1",
            ),
        ):
            connection.exec_driver_sql(f"INSERT INTO {into} {head} SELECT {values} FROM {of}")
        for table in ("traces", "trace_digests", "trace_digest_sets"):
            connection.exec_driver_sql(f"ANALYZE {table}")


def plan(service: Asked, filter_: str) -> str:
    from sqlalchemy import select

    from rucio_trace.store.tables import traces

    condition = parse_filter(filter_).condition
    query = select(traces.c.position).where(condition).order_by(traces.c.position.desc()).limit(101)
    with service.store._database.reading() as connection:
        compiled = query.compile(connection, compile_kwargs={"render_postcompile": True})
        named: Any = compiled.construct_params()
        how, values = "EXPLAIN QUERY PLAN", tuple(named[name] for name in compiled.positiontup or ())
        if service.store._database.kind == "postgresql":
            how, values = "EXPLAIN", named
        return "\n".join(str(tuple(row)) for row in connection.exec_driver_sql(f"{how} {compiled}", values))


def test_names_and_hashes_are_found_by_an_index(service: Asked) -> None:
    fill(service)
    for filter_, index in (
        ("name eq 'name500'", "name_position"),
        (f"hash eq '{digest('S2A_1')}'", "digest_set_position"),
        (f"name eq 'name500' and hash eq '{digest('S2A_1')}'", "_position"),
        (f"name eq 'name500' or hash eq '{digest('S2A_1')}'", ""),
        ("name eq 'name500' and size gt 10", "name_position"),
        ("id eq 'id77'", "id"),
    ):
        found = plan(service, filter_)
        assert index in found, (filter_, found)
        if index:
            assert "Seq Scan on traces" not in found, (filter_, found)
            assert "SCAN traces" not in found, (filter_, found)
    begun = time.perf_counter()
    assert names(service, f"hash eq '{digest('S2A_1')}'") == ["S2A_1"]
    assert time.perf_counter() - begun < 1
