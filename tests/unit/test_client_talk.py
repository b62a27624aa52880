"""What a trace service is sent, and what is made of its answers: scripts, run without a network."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st

from rucio_trace import faults
from rucio_trace.client import (
    BadAnswer,
    BadServiceUrl,
    BadToken,
    Client,
    Denied,
    NoService,
    NotTaken,
    ServiceFailed,
    ServiceUnavailable,
    TooLarge,
    Unreadable,
)
from rucio_trace.client.asking import LONGEST_PAUSE_SECONDS, Answer, Pause, Request, Unreached, check_url
from rucio_trace.client.records import fault_of, line_of, record_of
from rucio_trace.client.talk import BODY_BYTES, Item, Search, Talk, items, portions
from rucio_trace.config import Settings, Store
from rucio_trace.configured import open_service
from rucio_trace.envelope import to_json
from rucio_trace.errors import ConfigurationError, Malformed, Refuted, StorageError
from rucio_trace.statement import Event, format_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from rucio_trace.client.asking import Script
    from rucio_trace.store import Stored

URL = "https://traces.example.org"


def talk() -> Talk:
    return Talk(URL, patience=0.5)


def answered(value: Any = None, status: int = 200, **headers: str) -> Answer:
    return Answer(status, {"content-type": "application/json", **headers}, json.dumps(value).encode())


def problem(status: int, detail: str = "because", **headers: str) -> Answer:
    return answered({"detail": detail}, status, **{"content-type": "application/problem+json", **headers})


def run(script: Script[Any], *answers: Answer | Unreached) -> tuple[Any, list[Request], list[float]]:
    """What *script* returns when it gets *answers*, what it asked, and how long it would have waited."""
    left, asked, pauses = list(answers), [], []
    try:
        step = next(script)
        while True:
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                step = script.send(None)
            else:
                asked.append(step)
                step = script.send(left.pop(0))
    except StopIteration as done:
        assert not left
        return done.value, asked, pauses


def record(stored: Stored, **changes: Any) -> dict[str, Any]:
    at = format_time(stored.registered_at)
    told = {"id": stored.id, "position": stored.position, "registered_at": at, "trace": to_json(stored.trace)}
    return {**told, **changes}


STORED = record_of(record(samples.stored(samples.trace(), 7)))


class TestWhomWeAsk:
    @pytest.mark.parametrize(
        "url",
        [
            "",
            "traces.example.org",
            "ftp://h",
            "https://",
            "https://u:p@h",
            "https://h/?a=b",
            "https://h:x",
            "https://[::",
        ],
    )
    def test_only_a_plain_address_is_asked(self, url: str) -> None:
        with pytest.raises(BadServiceUrl) as caught:
            Client(url)
        assert "u:p" not in str(caught.value)

    def test_a_token_does_not_travel_in_the_open(self) -> None:
        with pytest.raises(BadServiceUrl, match="use https"):
            Client("http://traces.example.org", "secret")
        assert Client("http://localhost:8085/", "secret").url == "http://localhost:8085"
        assert check_url("http://traces.example.org", secret=False) == "http://traces.example.org"

    def test_no_proxy_stands_between_us_and_this_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as proxy:
            proxy.settimeout(0.2)
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
            monkeypatch.delenv("NO_PROXY", raising=False)
            monkeypatch.delenv("no_proxy", raising=False)
            with Client("http://localhost:9", "secret") as client, ThreadPoolExecutor() as pool:
                asked = pool.submit(client.ready)
                with pytest.raises(TimeoutError):
                    proxy.accept()[0].close()
                assert not asked.result(10)

    @pytest.mark.parametrize(
        ("url", "own"), [(URL, True), ("http://127.0.0.1:8085", True), ("http://traces.example.org", False)]
    )
    def test_times_that_anybody_could_have_changed_do_not_count(self, url: str, own: bool) -> None:
        with open_service(Settings(store=Store(service=url))) as store:
            assert store.own is own

    @pytest.mark.parametrize("token", ["", "secret\n", "sec ret", "sécret", "secret\0"])
    def test_what_no_header_holds_is_no_token(self, token: str) -> None:
        with pytest.raises(BadToken) as caught:
            Client(URL, token)
        assert "secret" not in f"{caught.value} {caught.value!r}"

    def test_a_token_is_shown_nowhere(self) -> None:
        with Client(URL, "rt_secret") as client:
            assert repr(client) == f"Client({URL!r})"
            assert "secret" not in repr(vars(client)["_http"])


class TestPatience:
    @pytest.mark.parametrize("failure", [Unreached("refused"), problem(503), problem(429), problem(502)])
    def test_what_may_pass_is_tried_again(self, failure: Answer | Unreached) -> None:
        found, asked, pauses = run(talk().one("x"), failure, answered(record(STORED)))
        assert (found, len(asked)) == (STORED, 2)
        assert 0.1 < pauses[0] < 0.3

    @pytest.mark.parametrize(("wish", "seconds"), [("0", 0), ("-1", None), ("x", None), ("", None)])
    def test_the_service_says_when_to_come_again(self, wish: str, seconds: float | None) -> None:
        _, _, (pause,) = run(Talk(URL, 60).one("x"), problem(503, **{"retry-after": wish}), answered(record(STORED)))
        assert (pause <= 1.0) if seconds == 0 else (0.1 < pause < 0.3)

    def test_a_date_is_a_wish_too(self) -> None:
        at = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
        _, _, (pause,) = run(Talk(URL, 60).one("x"), problem(503, **{"retry-after": at}), answered(record(STORED)))
        assert 15 < pause < 22

    def test_nobody_makes_us_wait_for_a_day(self) -> None:
        for wish in ("86400", "9" * 5000, "Fri, 31 Dec 2100 23:59:59 GMT"):
            answer = problem(503, **{"retry-after": wish})
            _, _, (pause,) = run(Talk(URL, 60).one("x"), answer, answered(record(STORED)))
            assert pause <= LONGEST_PAUSE_SECONDS + 1

    def test_patience_ends(self) -> None:
        with pytest.raises(ServiceUnavailable, match="full") as caught:
            run(talk().one("x"), problem(429, "the queue is full", **{"retry-after": "5"}))
        assert isinstance(caught.value, StorageError)

    def test_it_ends_once_and_not_for_every_question(self) -> None:
        talk = Talk(URL, 1e6)
        gone = Unreached("gone")
        for answers in ([Unreached("gone", final=True)], [gone], [gone]):
            with pytest.raises(ServiceUnavailable):
                run(talk.one("x"), *answers)
        run(talk.one("x"), answered(record(STORED)))
        assert len(run(talk.one("x"), gone, gone, answered(record(STORED)))[1]) == 3  # there it was again

    def test_what_will_not_pass_is_not_tried_again(self) -> None:
        with pytest.raises(ServiceUnavailable, match="not trusted"):
            run(Talk(URL, 1e6).one("x"), Unreached("a certificate that is not trusted", final=True))


class TestRefusals:
    @pytest.mark.parametrize(
        ("answer", "kind", "family"),
        [
            (problem(400), Unreadable, Malformed),
            (problem(422), Unreadable, Malformed),
            (problem(409), NotTaken, Refuted),
            (problem(401), Denied, ConfigurationError),
            (problem(403), Denied, ConfigurationError),
            (problem(500), ServiceFailed, StorageError),
            (answered("<html>", 404), NoService, ConfigurationError),
            (answered("<html>because", 413), TooLarge, Malformed),
            (answered("", 302, location="https://elsewhere.example.org/?q"), NoService, ConfigurationError),
        ],
    )
    def test_each_names_the_reason_that_the_service_gives(self, answer: Answer, kind: type, family: type) -> None:
        with pytest.raises(kind) as caught:
            run(talk().history("s:n"), answer)
        assert isinstance(caught.value, family)
        assert URL in str(caught.value)
        assert "because" in str(caught.value) or kind in (NoService, TooLarge)

    def test_what_there_is_none_of_is_none(self) -> None:
        for script in (talk().one("x"), talk().list_of("x"), talk().lineage(["00"], None, up=True, depth=None)):
            assert run(script, problem(404))[0] is None

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"id":1}', b'{"a":1,"a":2}', b"\xff", b"[" * 99999])
    def test_nonsense_is_no_answer(self, body: bytes) -> None:
        for script in (
            talk().one("x"),
            talk().history("s:n"),
            talk().products([samples.product()]),
            talk().query("ids", ["x"]),
        ):
            with pytest.raises(BadAnswer):
                run(script, Answer(200, {}, body))

    @pytest.mark.parametrize("told", [{}, {"position": None}, {"position": "7"}, {"position": True}, []])
    def test_a_position_is_a_number(self, told: Any) -> None:
        with pytest.raises(BadAnswer, match="position"):
            run(talk().statistics(), answered(told))

    @pytest.mark.parametrize("told", [[], [{}], [{}, {}, {}], [{}, 1], None])
    def test_each_item_has_one_verdict(self, told: Any) -> None:
        with pytest.raises(BadAnswer):
            run(talk().verdicts([{"name": "a"}, {"name": "b"}]), answered({"verdicts": told}))

    @given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
    def test_no_value_in_the_place_of_another_is_believed(self, value: Any) -> None:
        for key in ("id", "position", "registered_at", "trace"):
            if type(value) is not int or key != "position":  # any number is one
                with pytest.raises(BadAnswer):
                    run(talk().one("x"), answered(record(STORED, **{key: value})))


class TestTraces:
    def test_they_are_what_was_signed(self) -> None:
        original = samples.trace()
        found = record_of(record(samples.stored(original, 7))).trace
        assert (found.message, found.signature, found.id) == (original.message, original.signature, original.id)

    @pytest.mark.parametrize(
        "alter",
        [
            lambda t: t["product"].update(size=11),
            lambda t: t["product"].update(name="other"),
            lambda t: t.update(event="DELETE"),
            lambda t: t["signature"].update(message=t["signature"]["message"].replace("RSE-A", "RSE-B")[:-1]),
            lambda t: t["signature"].update(message=""),
            lambda t: t.update(extra=1),
        ],
    )
    def test_one_that_was_altered_on_its_way_is_refused(self, alter: Callable[[dict[str, Any]], None]) -> None:
        told = record(STORED)
        alter(told["trace"])
        with pytest.raises(BadAnswer, match="position 7"):
            run(talk().one("x"), answered(told))

    def test_one_under_the_id_of_another_is_refused(self) -> None:
        with pytest.raises(BadAnswer, match="expected trace other"):
            run(talk().one("x"), answered(record(STORED, id="other")))

    def test_one_of_another_product_is_none_of_this(self) -> None:
        key = samples.product(2)
        told = {"rucio": key.rucio, "vo": key.vo, "did": key.did, "generation": key.generation}
        products = [{"product": told, "traces": [record(STORED)], "lines": []}]
        with pytest.raises(BadAnswer, match=key.did):
            run(talk().products([key]), answered({"products": products, "strangers": []}))

    def test_a_product_that_is_not_told_of_has_no_history(self) -> None:
        key = samples.product(2)
        found, _, _ = run(talk().products([key]), answered({"products": [], "strangers": []}))
        assert (list(found.products), found.products[key].traces) == ([key], ())


class TestLines:
    LINE = samples.line()
    BATCH = record_of(record(samples.stored(samples.batch([samples.line(), samples.line(samples.product(2))]), 3)))

    def told(self, **changes: Any) -> dict[str, Any]:
        line = {key: getattr(self.LINE, key) for key in ("did", "generation", "digest", "time")}
        return {"batch": record(self.BATCH), "line": line, "index": 0, "position": 3, "stands": True, **changes}

    def test_a_line_comes_with_its_batch(self) -> None:
        found = line_of(self.told(), samples.product(), {})
        assert (found.batch, found.line, found.index, found.stands) == (self.BATCH, self.LINE, 0, True)

    @pytest.mark.parametrize(
        "changes",
        [
            {"index": 2},
            {"index": -1},
            {"index": True},
            {"stands": 1},
            {"batch": record(STORED)},
            {"line": {"did": "test:file1"}},
            {"line": 1},
        ],
    )
    def test_what_its_statement_does_not_bear_out_is_refused(self, changes: dict[str, Any]) -> None:
        with pytest.raises((Malformed, TypeError, KeyError)):
            line_of(self.told(**changes), samples.product(), {})

    def test_a_line_of_another_product_is_refused(self) -> None:
        with pytest.raises(Malformed):
            line_of(self.told(), samples.product(2), {})

    def test_a_line_younger_than_its_batch_is_refused(self) -> None:
        late = replace(self.LINE, time="2999-01-01T00:00:00.000000Z")
        line = {key: getattr(late, key) for key in ("did", "generation", "digest", "time")}
        with pytest.raises(Malformed):
            line_of(self.told(line=line), samples.product(), {})


class TestRegistration:
    def test_what_belongs_to_a_trace_goes_with_it(self) -> None:
        trace = samples.trace()
        (item,) = items([trace], {trace.id: "s2"}, {trace.id: b"list\n"})
        assert json.loads(item.text) == {"trace": to_json(trace), "scope": "s2", "list": "bGlzdAo="}
        (item,) = items([trace])
        assert (item.id, json.loads(item.text)) == (trace.id, to_json(trace))

    def test_many_go_in_portions_that_a_request_holds(self) -> None:
        found = list(portions([Item(str(n), b"{}") for n in range(25_000)]))
        assert [len(some) for some in found] == [10_000, 10_000, 5_000]
        large = b" " * (BODY_BYTES // 2)
        assert [len(some) for some in portions([Item("", large)] * 3)] == [1, 1, 1]
        assert not list(portions([]))

    def test_what_is_too_large_is_halved(self) -> None:
        def taken(*ids: str) -> Answer:
            results = [{"id": i, "outcome": "stored", "position": 1, "reason": None, "faults": []} for i in ids]
            return answered({"results": results})

        some = [Item(i, b"{}") for i in "abc"]
        found, asked, _ = run(talk().register(some), problem(413), taken("a"), taken("b", "c"))
        assert [answer.id for answer in found] == ["a", "b", "c"]
        assert [request.body for request in asked] == [b"[{},{},{}]", b"[{}]", b"[{},{}]"]

    def test_one_that_is_too_large_alone_costs_no_other(self) -> None:
        def taken(id_: str) -> Answer:
            return answered({"results": [{"id": id_, "outcome": "stored", "position": 1, "reason": None}]})

        proxy = answered("<html>", 413, **{"content-type": "text/html"})
        some = [Item(i, b"{}") for i in "abc"]
        found, _, _ = run(talk().register(some), proxy, taken("a"), proxy, proxy, taken("c"))
        assert [(answer.id, answer.outcome) for answer in found] == [("a", "stored"), ("b", "refused"), ("c", "stored")]
        assert "413" in (found[1].reason or "")

    def test_answers_that_do_not_fit_their_traces_are_none(self) -> None:
        with pytest.raises(BadAnswer, match="results"):
            run(talk().register([Item("a", b"{}")]), answered({"results": []}))

    def test_faults_keep_their_families(self) -> None:
        told = {"kind": "UnknownIssuer", "what": "w", "expected": "e", "found": "f", "trace": None}
        assert fault_of(told) == faults.UnknownIssuer("w", "e", "f")
        assert type(fault_of({**told, "kind": "FromTheFuture"})) is faults.Fault
        assert type(fault_of({**told, "kind": "shown"})) is faults.Fault


class TestSearch:
    def test_it_goes_on_from_page_to_page(self) -> None:
        search = Search(talk(), {"event": Event.COPY, "since": samples.START, "rse": None, "attribute": ["a:b", "c:d"]})
        found, (request,), _ = run(search.page(), answered({"traces": [record(STORED)], "next": "on"}))
        assert found == [STORED]
        assert dict(request.query)["since"] == format_time(samples.START)
        assert [value for key, value in request.query if key == "attribute"] == ["a:b", "c:d"]
        assert "rse" not in dict(request.query)
        assert not search.ended
        _, (request,), _ = run(search.page(), answered({"traces": [], "next": None}))
        assert dict(request.query)["cursor"] == "on"
        assert search.ended

    def test_it_ends_when_there_is_enough(self) -> None:
        search = Search(talk(), {}, left=1)
        _, (request,), _ = run(search.page(), answered({"traces": [record(STORED)], "next": "on"}))
        assert dict(request.query)["limit"] == "1"
        assert search.ended


def test_names_of_any_kind_are_part_of_one_path() -> None:
    _, (request,), _ = run(talk().one("../a b?#\udcff"), problem(404))
    assert request.path == "/api/v2/traces/..%2Fa%20b%3F%23%ED%B3%BF"
