"""The store finds what was said of a product before it was in Rucio, wherever the product is asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from samples import HOUR, authority, product, signer, statement, trace

from rucio_trace.cli import cli
from rucio_trace.envelope import sign
from rucio_trace.identity import Trust
from rucio_trace.status import Status, product_status
from rucio_trace.store import Outcome, Store
from rucio_trace.trace import Event, Source
from rucio_trace.verify import Candidate, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rucio_trace.envelope import Trace

TRUST = Trust.from_anchors([authority().pem])
OUTSIDE = {"rucio": None, "did": None, "generation": None, "rse": None}


def outside(event: Event = Event.CREATE, **changes: object) -> Trace:
    return sign(statement(event, **{**OUTSIDE, "method": None, "observed": None, **changes}), signer())  # type: ignore[arg-type]


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with Store.open(store_url) as store:
        yield store


@pytest.fixture
def told(store: Store) -> dict[str, Trace]:
    """A producer's word, the copy that names it, what was said of the file since; and two files that are others."""
    origin = outside()
    traces = {
        "origin": origin,
        "copy": trace(Event.COPY, source=Source(None, origin.id), after=2 * HOUR),
        "obsolete": outside(Event.OBSOLETE, obsolescence="reprocessed"),
        "of other bytes": outside(bytes_of="other"),
        "of another name": outside(name="other"),
    }
    answers = store.register(list(traces.values()), trust=TRUST)
    assert {answer.outcome for answer in answers} == {Outcome.STORED}
    return traces


def test_a_history_holds_what_joined_it_and_nothing_else(store: Store, told: dict[str, Trace]) -> None:
    other = product(2)
    found = store.product([product(), other])
    assert [s.id for s in found[product()]] == [told[name].id for name in ("origin", "copy", "obsolete")]
    assert found[other] == []
    status = product_status(found[product()], str)
    assert (status.status, status.origin and status.origin.id) == (Status.OBSOLETE, told["origin"].id)


def test_a_status_is_searched_with_what_joined(store: Store, told: dict[str, Trace]) -> None:
    assert [s.id for s in store.search(status=Status.OBSOLETE)] == [told["copy"].id]
    assert store.search(status=Status.GENUINE) == []


def test_the_evidence_by_did_holds_what_joined(store: Store, told: dict[str, Trace]) -> None:
    s = told["origin"].statement
    evidence = store.candidates({"SHA256": "0" * 64}, "whatever", product().did)
    assert {told["origin"].id, told["copy"].id, told["obsolete"].id} <= {item.trace.id for item in evidence}
    candidate = Candidate(file="f", base_name=s.name, size=s.size, hashes={"SHA256": s.hash}, did=product().did)
    judgement = judge(candidate, evidence, TRUST, evidence[0].registered_at or _never())
    assert (judgement.verdict, judgement.origin and judgement.origin.id) == (Verdict.OBSOLETE, told["origin"].id)


def _never() -> object:
    raise AssertionError


def test_history_shows_what_joined(store: Store, store_url: str, told: dict[str, Trace], tmp_path: Path) -> None:
    if not store_url.startswith("sqlite"):
        pytest.skip("the command line is the same")
    settings = tmp_path / "rucio-trace.toml"
    settings.write_text(f'[store]\nurl = "{store_url}"\n')
    command = ["--config", str(settings), "history", product().did]
    shown = CliRunner().invoke(cli, command).output
    assert [event in shown for event in ("CREATE", "COPY", "OBSOLETE")] == [True, True, True]
    traces = json.loads(CliRunner().invoke(cli, [*command, "--traces"]).stdout)
    assert {value["id"] for value in traces} == {told[name].id for name in ("origin", "copy", "obsolete")}


def test_a_producer_without_the_right_outside_is_taken_for_a_scope(store: Store) -> None:
    members = f'[[member]]\nname = "P"\nca = "ca"\nsubject = "*"\ncreate = ["{product().scope}"]\n'
    trust = Trust.from_federation(members, lambda _name: authority().pem)
    origin = outside()
    [refused] = store.register([origin], trust=trust)
    assert refused.outcome is Outcome.REFUSED
    [refused] = store.register([origin], trust=trust, scopes={origin.id: "other"})
    assert refused.outcome is Outcome.REFUSED
    [taken] = store.register([origin], trust=trust, scopes={origin.id: product().scope})
    assert taken.outcome is Outcome.STORED
