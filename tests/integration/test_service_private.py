"""What private providers bring changes nothing for others, and they cannot hide what others bring openly."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from samples import batch, digest, line, product, signer, statement, trace
from service_in_process import TRUST, Asked, add, asked

from rucio_trace.batch import write_lines
from rucio_trace.envelope import sign
from rucio_trace.identity import Patterns, Trust
from rucio_trace.statement import Event, Input, Source
from rucio_trace.store import Item, Outcome, Registration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace.envelope import Trace

API = "/api/v2"


@pytest.fixture
def service(store_url: str) -> Iterator[Asked]:
    with asked(store_url) as service:
        yield service


def bring(service: Asked, *made: Trace, provider: str | None = None) -> list[Registration]:
    judged = service.store.judge([Item(each) for each in made], TRUST)
    return service.store.add(judged, provider=provider, private={"SECRET", "OTHER"})


def verdict(service: Asked, token: str | None = None) -> str:
    told = service.post(f"{API}/verdicts", {"items": [{"name": "file1"}]}, token=token)
    return str(told["verdicts"][0]["verdict"])


def test_known_is_told_to_none_but_those_who_have_the_signature(service: Asked) -> None:
    made = trace()
    add(service.store, made, provider="SECRET")
    for forged in (replace(made, signature=b"x"), replace(made, certificate=b"x")):
        (answer,) = bring(service, forged, provider="SITE")
        assert (answer.outcome, answer.position) == (Outcome.REFUSED, None)
    (answer,) = bring(service, made, provider="SITE")
    assert (answer.outcome, answer.position) == (Outcome.KNOWN, 1)


def test_nobody_hides_a_revoke_by_bringing_it_first(service: Asked) -> None:
    created = trace(Event.CREATE, rse=None)
    revoke = trace(Event.REVOKE, revokes=created.id)
    add(service.store, created, provider="SITE")
    add(service.store, revoke, provider="SECRET")
    for provider in ("SECRET", "OTHER"):
        assert bring(service, revoke, provider=provider)[0].outcome is Outcome.KNOWN
        assert (verdict(service), verdict(service, "secret")) == ("GENUINE", "REVOKED")
    answers = bring(service, revoke, revoke, provider="SITE")
    assert [(answer.outcome, answer.position) for answer in answers] == [(Outcome.KNOWN, 2)] * 2
    assert verdict(service) == "REVOKED"
    assert service.get(f"{API}/statistics")["events"] == {"CREATE": 1, "REVOKE": 1}
    assert service.get(f"{API}/statistics", token="audit")["events"] == {"CREATE": 1, "REVOKE": 1}
    assert bring(service, revoke, provider="SECRET")[0].outcome is Outcome.KNOWN
    assert verdict(service) == "REVOKED", "and it stays so"


def test_a_private_line_takes_the_place_of_no_public_one(service: Asked) -> None:
    key, lines = product(), [line(product())]
    public, hidden, later = (batch(lines) for _ in range(3))

    def seen(token: str | None = None) -> list[str]:
        whole = {"rucio": key.rucio, "did": key.did, "generation": key.generation}
        (found,) = service.post(f"{API}/products", {"products": [whole]}, token=token)["products"]
        return [each["batch"]["id"] for each in found["lines"]]

    add(service.store, public, lists={public.id: write_lines(lines)}, provider="SITE")
    add(service.store, hidden, lists={hidden.id: write_lines(lines)}, provider="SECRET")
    assert (seen(), seen("secret")) == ([public.id], [public.id, hidden.id])
    add(service.store, later, lists={later.id: write_lines(lines)}, provider="ANOTHER")
    assert (seen(), seen("secret")) == ([later.id], [hidden.id, later.id])


def test_hidden_products_close_no_circle_for_others(service: Asked) -> None:
    def made_from(number: int, source: int) -> Trace:
        inputs = (Input(f"file{source}", digest(f"file{source}")),)
        return trace(Event.CREATE, product(number), rse=None, inputs=inputs)

    add(service.store, made_from(1, 2), provider="SECRET")
    assert bring(service, made_from(2, 1), provider="SECRET")[0].outcome is Outcome.REFUSED
    assert bring(service, made_from(2, 1), provider="SITE")[0].outcome is Outcome.STORED
    assert bring(service, made_from(1, 2), provider="SITE")[0].outcome is Outcome.REFUSED


def test_a_status_rests_on_those_who_may_speak_for_the_product(store_url: str) -> None:
    nowhere: dict[str, Any] = dict.fromkeys(("rucio", "did", "generation", "rse", "method", "observed"))
    origin = sign(statement(Event.CREATE, **nowhere), signer())
    obsolete = sign(statement(Event.OBSOLETE, obsolescence="reprocessed", **nowhere), signer())
    with asked(store_url) as service:
        add(service.store, origin, trace(Event.COPY, source=Source(None, origin.id)), obsolete)
        (told,) = service.get(f"{API}/history", did=product().did)["products"]
        assert told["status"] == "OBSOLETE"
        assert service.get(f"{API}/traces", status="OBSOLETE")["traces"]
    (member,) = TRUST.members
    nothing = replace(member, outside=False, obsolete=Patterns(()))
    with asked(store_url, Trust((nothing,), TRUST.revocations)) as service:
        (told,) = service.get(f"{API}/history", did=product().did)["products"]
        assert told["status"] != "OBSOLETE"
        assert not service.get(f"{API}/traces", status="OBSOLETE")["traces"]
