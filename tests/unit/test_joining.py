"""What was said of a file outside Rucio belongs to the product it became, if a site says that it is the same file."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st
from unit.authority import DAY, HASH, NOW, OTHER, PRODUCT, Authority, file, made, signed_raw, statement

from rucio_trace.envelope import Trace, dumps, parse_traces, sign
from rucio_trace.history import history_of
from rucio_trace.identity import Trust
from rucio_trace.joining import join
from rucio_trace.status import Status, product_status
from rucio_trace.trace import Event, Found, ProductKey, Source, format_time
from rucio_trace.verify import Evidence, Judgement, Verdict, judge

if TYPE_CHECKING:
    import random

ROOT = Authority.root()
SITE = ROOT.issue(uri="https://site/recorder").signer
PRODUCERS = Authority.root("Producers")
PRODUCER = PRODUCERS.issue(uri="https://producer/key").signer
ARCHIVE = ROOT.issue(uri="https://archive/key").signer
STRANGER = Authority.root("Stranger").issue().signer
MEMBERS = {
    "site": ("https://site/*", ['rses = ["SITE-A_*"]']),
    "producer": ("https://producer/*", ['create = ["s2"]', 'revoke = ["s2"]', 'obsolete = ["s2"]']),
    "archive": ("https://archive/*", ["outside = true"]),
}


def federation(*, crl: bytes | None = None, **changed: list[str]) -> Trust:
    """The members, some with other rights; *crl* is the list of the producers' authority."""
    files = {"ca": ROOT.pem, "producers": PRODUCERS.pem, "crl": crl or b""}
    lines = []
    for name, (uri, rights) in MEMBERS.items():
        ca = "producers" if name == "producer" else "ca"
        lines += ["[[member]]", f'name = "{name}"', f'ca = "{ca}"', f'subject = "URI:{uri}"']
        lines += changed.get(name, rights)
        lines += ['crl = "crl"'] if crl and name == "producer" else []
    return Trust.from_federation("\n".join(lines), files.__getitem__)


TRUST = federation()


def outside(event: Event = Event.CREATE, by: Any = PRODUCER, **changes: Any) -> Trace:
    return made(by, event, **{"product": None, "method": None, "observed": None, "rse": None, **changes})


def withdrawal(of: Trace, by: Any = PRODUCER, **changes: Any) -> Trace:
    return outside(Event.REVOKE, by, revokes=of.id, hash=of.statement.hash, **changes)


def link(to: Trace | str, event: Event = Event.COPY, **changes: Any) -> Trace:
    id_ = to if isinstance(to, str) else to.id
    return made(SITE, event, source=Source(None, id_), **changes)


def copernicus(event: str = "CREATE", by: Any = ARCHIVE, hash_: str = HASH, **changes: Any) -> Trace:
    size, name = changes.get("size", 735683295), changes.get("name", PRODUCT.name)
    text = f'{{"hash":"{hash_}","name":"{name}","size":{size},"event":"{event}"}}'
    outer = {"event": event, "hash_algorithm": "BLAKE3", "product": {"name": name, "size": size, "hash": hash_}}
    [trace] = parse_traces(json.dumps(signed_raw(text, by, **outer)).encode())
    assert not trace.faults
    return trace


def judged(*traces: Trace, trust: Trust = TRUST, **candidate: Any) -> Judgement:
    """The judgement of the file by these traces, in every order (or many)."""
    evidence = [Evidence(trace) for trace in traces]
    judgement = judge(file(**candidate), evidence, trust, NOW)
    for order in itertools.islice(itertools.permutations(evidence), 1, 24):
        again = judge(file(**candidate), order, trust, NOW)
        assert (again.verdict, again.product, again.origin) == (judgement.verdict, judgement.product, judgement.origin)
    return judgement


def status(*traces: Trace) -> Any:
    return product_status([samples.stored(trace, n) for n, trace in enumerate(traces, 1)], str)


# Joined --------------------------------------------------------------------------------------------------------------


def test_a_producers_trace_joins_the_product_whose_copy_names_it() -> None:
    origin = outside()
    judgement = judged(origin, link(origin))
    assert (judgement.verdict, judgement.product, judgement.origin) == (Verdict.GENUINE, PRODUCT, origin)
    assert judgement.signer == "producer"
    assert judgement.faults == ()
    found = status(origin, link(origin))
    assert (found.status, found.origin.trace, found.trace_replicas) == (Status.GENUINE, origin, "1/1")


def test_without_a_copy_that_names_it_it_joins_nothing() -> None:
    origin = outside()
    assert judged(origin).verdict is Verdict.UNTRUSTED  # its signer may speak of products in s2, and this is none
    judgement = judged(origin, made(SITE, Event.COPY))
    assert (judgement.verdict, judgement.origin.statement.event) == (Verdict.GENUINE, Event.COPY)


def test_all_that_was_said_of_the_file_joins_with_it() -> None:
    origin = outside()
    obsolete = outside(Event.OBSOLETE, obsolescence="reprocessed")
    assert judged(origin, link(origin), obsolete).verdict is Verdict.OBSOLETE
    assert judged(origin, link(origin), obsolete, withdrawal(obsolete)).verdict is Verdict.GENUINE
    assert status(origin, link(origin), obsolete).status is Status.OBSOLETE
    later = copernicus("OBSOLETE")
    assert judged(origin, link(origin), later).verdict is Verdict.OBSOLETE


def test_nobody_withdraws_what_another_member_said_outside() -> None:
    origin = outside()
    foreign = withdrawal(origin, ARCHIVE)
    assert judged(origin, link(origin), foreign).verdict is Verdict.GENUINE
    assert status(origin, link(origin), foreign).status is Status.GENUINE


def test_a_withdrawn_one_makes_the_product_revoked_until_that_is_undone() -> None:
    origin = outside()
    revoke = withdrawal(origin)
    assert judged(origin, link(origin), revoke).verdict is Verdict.REVOKED
    assert status(origin, link(origin), revoke).status is Status.REVOKED
    undo = withdrawal(revoke)
    assert judged(origin, link(origin), revoke, undo).verdict is Verdict.GENUINE


def test_whoever_may_revoke_in_the_scope_withdraws_it_there() -> None:
    origin = outside()
    revoke = made(PRODUCER, Event.REVOKE, revokes=origin.id)
    assert judged(origin, link(origin), revoke).verdict is Verdict.REVOKED
    of_other = made(
        PRODUCER, Event.REVOKE, revokes=origin.id, product=ProductKey(*_parts(), "s2", "other", PRODUCT.generation)
    )
    assert judged(origin, link(origin), of_other).verdict is Verdict.GENUINE


def _parts() -> tuple[str, str]:
    return PRODUCT.rucio, PRODUCT.vo


def test_a_copernicus_trace_joins_and_is_the_origin() -> None:
    origin = copernicus()
    judgement = judged(origin, link(origin))
    assert (judgement.verdict, judgement.product, judgement.origin) == (Verdict.GENUINE, PRODUCT, origin)
    found = status(origin, link(origin))
    assert (found.status, found.trace_replicas) == (Status.GENUINE, "1/1")
    gone = copernicus("OBSOLETE")
    assert status(origin, link(origin), gone).status is Status.OBSOLETE


def test_a_first_replica_with_other_bytes_leaves_the_producers_word_standing() -> None:
    origin = outside()
    corrupt = link(origin, Event.CORRUPT, found=Found(1, {"BLAKE3": OTHER}))
    assert status(origin, corrupt).status is Status.TAMPERED
    judgement = judged(origin, corrupt)
    assert (judgement.verdict, judgement.product) == (Verdict.GENUINE, PRODUCT)
    assert judged(origin, corrupt, hash_=OTHER).verdict is Verdict.TAMPERED


def test_two_of_different_bytes_dispute_the_product() -> None:
    one, two = outside(), outside(hash=OTHER)
    links = link(one), link(two, hash=OTHER, rse="SITE-A_TAPE")
    assert judged(one, two, *links).verdict is Verdict.DISPUTED
    assert status(one, two, *links).status is Status.DISPUTED
    assert judged(one, two, *links, withdrawal(two)).verdict is Verdict.GENUINE


def test_it_and_an_observed_creation_of_other_bytes_dispute_the_product() -> None:
    origin = outside()
    assert judged(origin, link(origin), made(SITE, hash=OTHER, rse="SITE-A_TAPE")).verdict is Verdict.DISPUTED


def test_one_file_can_become_several_products() -> None:
    origin = outside()
    again = ProductKey(*_parts(), "s2", PRODUCT.name, format_time(NOW - 5 * DAY))
    judgement = judged(origin, link(origin), link(origin, product=again))
    assert (judgement.verdict, judgement.product) == (Verdict.GENUINE, again)


# Not joined ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "different",
    [{"size": 1}, {"name": "other.zip"}, {"hash": OTHER}, {"hashes": {"ADLER32": "00000001"}}],
    ids=str,
)
def test_one_that_disagrees_joins_nothing(different: dict[str, Any]) -> None:
    origin = outside(**different)
    copy = link(origin, hashes={"ADLER32": "00000002"})
    assert join([copy], [origin]) == []
    assert judged(origin, copy).origin == copy


def test_a_checksum_alone_joins_nothing() -> None:
    origin = outside(hashes={"ADLER32": "00000001"})
    copy = link(origin, hash="00000001", hash_algorithm="ADLER32", method="none", observed=None)
    assert join([copy], [origin]) == []


@pytest.mark.parametrize("event", [event for event in Event if event not in (Event.COPY, Event.CORRUPT)])
def test_no_other_event_joins(event: Event) -> None:
    origin = outside()
    more = {"revokes": origin.id} if event is Event.REVOKE else {}
    assert join([link(origin, event, **more)], [origin]) == []


def test_a_source_on_an_rse_joins_nothing() -> None:
    origin = outside()
    assert join([made(SITE, Event.COPY, source=Source("SITE-B_DISK", origin.id))], [origin]) == []


def test_a_copy_that_does_not_count_joins_nothing() -> None:
    origin = outside()
    unknown = made(STRANGER, Event.COPY, source=Source(None, origin.id))
    beyond = made(SITE, Event.COPY, source=Source(None, origin.id), rse="SITE-B_DISK")
    assert judged(origin, unknown, beyond).verdict is Verdict.UNTRUSTED
    copy = link(origin)
    revoke = made(PRODUCER, Event.REVOKE, revokes=copy.id)
    assert join([copy, revoke], [origin]) == []
    assert judged(origin, copy, revoke).origin is None


def test_a_signer_without_the_right_in_that_scope_joins_nothing() -> None:
    origin = outside()
    elsewhere = ProductKey(*_parts(), "other", PRODUCT.name, PRODUCT.generation)
    judgement = judged(origin, link(origin, product=elsewhere))
    assert (judgement.verdict, judgement.origin.statement.event) == (Verdict.GENUINE, Event.COPY)
    assert "OutsideRights" in {fault.kind for fault in judgement.faults}
    obsolete = outside(Event.OBSOLETE, obsolescence="old")
    no_right = federation(producer=['create = ["s2"]'])
    assert judged(origin, link(origin), obsolete, trust=no_right).verdict is Verdict.GENUINE
    assert judged(origin, link(origin), withdrawal(origin), trust=no_right).verdict is Verdict.GENUINE


def test_one_without_the_right_brings_nothing_along() -> None:
    """It speaks of the product's bytes by one digest, and by another of a file that is obsolete."""
    bridge = outside(by=ARCHIVE, hashes={"SHA256": OTHER})
    obsolete = outside(Event.OBSOLETE, obsolescence="old", hash_algorithm="SHA256", hash=OTHER)
    assert judged(bridge, link(bridge), obsolete).verdict is Verdict.OBSOLETE
    assert judged(bridge, link(bridge), obsolete, trust=federation(archive=[])).verdict is Verdict.GENUINE


def test_whoever_may_speak_outside_joins_in_any_scope_and_withdraws_only_his_own() -> None:
    origin = copernicus()
    assert judged(origin, link(origin)).verdict is Verdict.GENUINE
    mine = outside()
    assert judged(mine, link(mine), withdrawal(mine, ARCHIVE)).verdict is Verdict.GENUINE


def test_where_a_revocation_list_cannot_answer_nothing_is_decided() -> None:
    origin = outside()
    stale = federation(crl=PRODUCERS.crl(at=NOW - 50 * DAY, days=1))
    obsolete = outside(Event.OBSOLETE, obsolescence="old")
    copernican = copernicus()
    traces = (copernican, link(copernican), obsolete)
    assert judged(*traces).verdict is Verdict.OBSOLETE
    assert judged(*traces, trust=stale).verdict is Verdict.UNDECIDED
    assert judged(origin, link(origin), trust=stale).verdict is Verdict.GENUINE  # the copy says the same


def test_nothing_of_an_older_generation_is_said_of_a_living_one() -> None:
    origin = outside()
    older = ProductKey(*_parts(), "s2", PRODUCT.name, format_time(NOW - 20 * DAY))
    traces = [link(origin, product=older), made(SITE, hash=OTHER)]
    assert join(traces[1:], [origin]) == []
    judgement = judged(origin, *traces, did=PRODUCT.did)
    assert judgement.verdict is Verdict.TAMPERED


# Laws ----------------------------------------------------------------------------------------------------------------


@st.composite
def stories(draw: st.DrawFn) -> list[Trace]:
    """Traces of one product and of files that it may be, signed by nobody: only what they say matters here."""
    hashes = st.sampled_from([HASH, OTHER])
    strangers = [
        _unsigned(draw(st.sampled_from([Event.CREATE, Event.OBSOLETE])), None, hash=draw(hashes))
        for _ in range(draw(st.integers(0, 3)))
    ]
    targets = [*strangers]
    for _ in range(draw(st.integers(0, 2))):
        if targets:
            of = draw(st.sampled_from(targets))
            targets.append(_unsigned(Event.REVOKE, None, revokes=of.id, hash=of.statement.hash))
    own: list[Trace] = []
    for _ in range(draw(st.integers(1, 3))):
        ids = [t.id for t in strangers] or ["none"]
        event = draw(st.sampled_from([Event.CREATE, Event.COPY, Event.CORRUPT, Event.VERIFY]))
        source = Source(None, draw(st.sampled_from(ids))) if draw(st.booleans()) else None
        own.append(_unsigned(event, PRODUCT, hash=draw(hashes), source=source))
    if draw(st.booleans()):
        own.append(_unsigned(Event.REVOKE, PRODUCT, revokes=draw(st.sampled_from([*targets, *own])).id))
    return [*own, *targets]


def _unsigned(event: Event, product: ProductKey | None, **changes: Any) -> Trace:
    if product is None:
        changes |= {"rse": None, "method": None, "observed": None}
    if event is Event.OBSOLETE:
        changes["obsolescence"] = "old"
    s = statement(SITE, event, product=product, **changes)
    return Trace(statement=s, message=s.event_id or "", signature=b"", certificate=b"")


@given(stories(), st.randoms(use_true_random=False))
def test_the_order_never_matters(story: list[Trace], shuffler: random.Random) -> None:
    def outcome(traces: list[Trace]) -> Any:
        own = [t for t in traces if t.statement.product]
        joined = join(own, traces)
        judged_ = history_of([*own, *joined])
        return {t.id for t in joined}, judged_.origin, judged_.rivals, set(map(id, judged_.traces))

    shuffled = list(story)
    shuffler.shuffle(shuffled)
    assert outcome(story) == outcome(shuffled)


@given(stories())
def test_what_joins_speaks_of_the_same_file_and_something_that_stands_names_one_of_it(story: list[Trace]) -> None:
    own = [t for t in story if t.statement.product]
    joined = join(own, story)
    for trace in joined:
        assert trace.statement.product is None
        named = [t for t in joined if t.statement.hash == trace.statement.hash]
        ids = {t.statement.source.trace for t in own if t.statement.source and t.statement.hash == trace.statement.hash}
        assert ids & {t.id for t in named}
    assert join(own, [t for t in story if t not in joined]) == []


@given(stories())
def test_a_status_is_that_of_the_traces_that_joined(story: list[Trace]) -> None:
    own = [t for t in story if t.statement.product]
    assert status(*story).status is status(*own, *join(own, story)).status


def test_sign_and_join_real_traces_from_their_json() -> None:
    """As `verify --trace` meets them: nothing but files."""
    origin = sign(statement(PRODUCER, product=None), PRODUCER)
    traces = parse_traces(dumps([origin, link(origin)]).encode())
    assert judged(*traces).signer == "producer"
