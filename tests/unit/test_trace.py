"""The signed text: written one way, read strictly."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rucio_trace import strictjson
from rucio_trace.errors import Malformed, TraceabilityError
from rucio_trace.trace import (
    HEX_DIGITS,
    STRONG,
    Cause,
    Content,
    Event,
    Found,
    Input,
    ProductKey,
    Service,
    Source,
    Statement,
    base_name,
    format_time,
    new_event_id,
    new_salt,
    parse,
    parse_time,
    serialise,
)

# Every character I-JSON allows in a text, except NUL, which no name may hold.
characters = st.characters(codec="utf-8", exclude_characters="\0").filter(
    lambda c: (ord(c) & 0xFFFE) != 0xFFFE and not 0xFDD0 <= ord(c) <= 0xFDEF
)
texts = st.text(characters, min_size=1, max_size=40)
names = texts.filter(lambda t: "/" not in t and t not in (".", ".."))
moments = st.datetimes(timezones=st.just(UTC)).map(format_time)
sizes = st.integers(0, strictjson.MAX_INTEGER)


def digests(algorithm: str) -> st.SearchStrategy[str]:
    return st.text("0123456789abcdef", min_size=HEX_DIGITS[algorithm], max_size=HEX_DIGITS[algorithm])


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-strictjson.MAX_INTEGER, strictjson.MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def statements(draw: st.DrawFn) -> Statement:
    algorithm = draw(st.sampled_from(STRONG))
    event = draw(st.sampled_from(Event))
    name = draw(names)
    fields: dict[str, object] = {}
    if draw(st.booleans()):
        scope = draw(texts.filter(lambda t: ":" not in t))
        folder = draw(st.sampled_from(["", "a/", "/a/b/"]))
        vo = draw(st.sampled_from(["def", "atl"]))
        fields |= ProductKey(draw(texts), vo, scope, folder + name, draw(moments)).fields()
        if event not in (Event.OBSOLETE, Event.REVOKE):
            fields |= {"rse": draw(texts), "method": "read", "observed": draw(moments)}
            if event in (Event.CREATE, Event.COPY, Event.VERIFY):
                fields["adopted"] = draw(st.sampled_from([None, True]))
    if event is Event.CORRUPT:
        fields["found"] = Found(draw(sizes), {"MD5": draw(digests("MD5"))})
    if event is Event.REVOKE:
        fields["revokes"] = draw(st.sampled_from([new_event_id(), "a" * 64]))
    if event is Event.COPY:
        fields["source"] = draw(st.sampled_from([None, Source(None, None), Source("X", new_event_id())]))
    contents = draw(st.none() | st.lists(st.tuples(names, digests(algorithm)), max_size=3, unique_by=lambda i: i[0]))
    inputs = draw(st.none() | st.lists(st.tuples(texts, digests("MD5")), max_size=2))
    return Statement(
        name=name,
        size=draw(sizes),
        hash=draw(digests(algorithm)),
        hash_algorithm=algorithm,
        event=event,
        event_id=new_event_id(),
        site=draw(texts),
        signer=draw(digests("SHA256")),
        time=draw(moments),
        salt=new_salt(),
        hashes=draw(st.none() | st.fixed_dictionaries({"ADLER32": digests("ADLER32")})),
        contents=None if contents is None else tuple(Content(*item) for item in contents),
        inputs=None if inputs is None else tuple(Input(*item) for item in inputs),
        attributes=draw(st.none() | st.dictionaries(texts, json_values, max_size=3)),
        cause=draw(st.none() | st.builds(Cause, account=texts, tool=st.none() | texts)),
        service=draw(st.none() | st.builds(Service, context=texts)),
        **fields,  # type: ignore[arg-type]
    )


@given(statements())
def test_a_statement_reads_back_as_itself(statement: Statement) -> None:
    text = serialise(statement)
    assert parse(text) == statement
    assert serialise(parse(text)) == text


@given(statements(), st.randoms(use_true_random=False))
def test_the_order_of_reading_is_free(statement: Statement, random: object) -> None:
    members = list(json.loads(serialise(statement)).items())
    random.shuffle(members)  # type: ignore[attr-defined]
    assert parse(json.dumps(dict(members))) == statement


@given(statements())
def test_the_text_escapes_as_the_field_does(statement: Statement) -> None:
    text = serialise(statement)
    assert not set(text) & set("&<>\u2028\u2029")
    assert " " not in json.dumps(json.loads(text), separators=(",", ":"))[:1]


@given(st.text() | st.binary().map(lambda b: b.decode("latin-1")))
def test_only_our_errors_escape_from_any_text(text: str) -> None:
    with pytest.raises(Malformed):
        parse(text)


@given(json_values)
def test_only_our_errors_escape_from_any_json(value: object) -> None:
    with pytest.raises(Malformed):
        parse(json.dumps(value))


@given(statements(), st.data())
def test_only_our_errors_escape_from_any_value_in_any_place(statement: Statement, data: st.DataObject) -> None:
    members = json.loads(serialise(statement))
    key = data.draw(st.sampled_from(sorted(members)))
    members[key] = data.draw(json_values)
    try:
        changed = parse(json.dumps(members))
    except Malformed:
        return
    assert json.loads(serialise(changed)) == members


@given(statements(), st.data())
def test_no_key_can_be_left_out_unnoticed(statement: Statement, data: st.DataObject) -> None:
    members = json.loads(serialise(statement))
    key = data.draw(st.sampled_from(sorted(members)))
    del members[key]
    try:
        changed = parse(json.dumps(members))
    except Malformed:
        return
    assert changed != statement


def test_a_json_bomb_of_lists_is_refused() -> None:
    for bomb in ("[" * 1_000_000, '{"a":' * 500_000, "[" + "[]," * 1_500_000 + "[]]"):
        with pytest.raises(Malformed):
            parse(bomb)


def test_a_number_of_a_million_digits_is_refused_at_once() -> None:
    with pytest.raises(Malformed, match="integers"):
        parse('{"size":' + "9" * 1_000_000 + "}")


def test_more_than_8_mib_is_refused() -> None:
    with pytest.raises(Malformed, match="8388608 bytes"):
        parse('{"name":"' + "x" * (8 * 1024 * 1024) + '"}')
    with pytest.raises(Malformed, match="8388608 bytes"):
        parse('{"name":"' + "é" * (4 * 1024 * 1024) + '"}')


def test_sixteen_levels_are_read_and_seventeen_are_not() -> None:
    assert strictjson.read("[" * 16 + "]" * 16, "x")
    with pytest.raises(Malformed, match="depth"):
        strictjson.read("[" * 17 + "]" * 17, "x")


def test_non_utf8_is_refused() -> None:
    with pytest.raises(Malformed, match="UTF-8"):
        strictjson.read(b'{"name":"\xff"}', "x")


def test_a_newer_schema_is_read_as_far_as_it_is_common() -> None:
    newer = parse(
        '{"hash":"%s","name":"x","size":1,"event":"MELT","schema":"rucio-trace/2"}'.replace("MELT", "COPY") % ("a" * 64)
    )
    assert newer.schema == "rucio-trace/2"
    assert newer.product is None


def test_an_error_names_the_object_what_was_expected_and_what_was_found() -> None:
    with pytest.raises(TraceabilityError, match=r"event: expected CREATE, COPY.*found 'MOVE'"):
        parse('{"hash":"%s","name":"x","size":1,"event":"MOVE"}' % ("a" * 64))


def test_an_error_shows_hostile_text_safely() -> None:
    with pytest.raises(Malformed) as error:
        parse(json.dumps({"hash": "a\x1b[2J\n\u202e" * 1000}))
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 400


def test_times_are_utc_with_six_decimals() -> None:
    berlin = datetime(2026, 6, 1, 14, 0, 0, 5, tzinfo=timezone(timedelta(hours=2)))
    assert format_time(berlin) == "2026-06-01T12:00:00.000005Z"
    assert parse_time("2026-06-01T12:00:00.000005Z") == berlin
    with pytest.raises(ValueError, match="zone"):
        format_time(datetime(2026, 6, 1))  # noqa: DTZ001 - the point of the test


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_reads_back_as_itself(moment: datetime) -> None:
    assert parse_time(format_time(moment)) == moment


def test_the_base_name_of_a_did_name() -> None:
    assert base_name("a.zip") == "a.zip"
    assert base_name("/store/data/a.zip") == "a.zip"
    assert base_name("folder/") == "folder"


def test_salts_and_ids_never_repeat() -> None:
    assert len({new_salt() for _ in range(1000)}) == 1000
    assert len({new_event_id() for _ in range(1000)}) == 1000


def test_a_duplicate_among_a_million_keys_is_found_at_once() -> None:
    text = "{" + ",".join(f'"{number:x}":1' for number in range(400_000)) + ',"5":1}'
    with pytest.raises(Malformed, match="'5' twice"):
        strictjson.read(text, "x")  # hours, if each key were counted
