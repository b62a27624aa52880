"""The verdict: what the traces we believe say of a file in hand."""

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from authority import DAY, HASH, NOW, OTHER, PRODUCT, Authority, declared, file, made, signed_raw
from hypothesis import given, settings
from hypothesis import strategies as st

from rucio_trace import faults
from rucio_trace.envelope import Trace, dumps, parse_traces
from rucio_trace.history import history_of, origin_of
from rucio_trace.identity import Trust
from rucio_trace.trace import Content, Event, ProductKey, format_time
from rucio_trace.verify import (
    EXIT_CODES,
    Candidate,
    Evidence,
    Judgement,
    Verdict,
    algorithms_for,
    check_evidence,
    judge,
    worst,
)

ROOT = Authority.root()
SITE = ROOT.issue(uri="https://site-a.example/recorder").signer
PRODUCER = ROOT.issue("producer").signer
TRUST = Trust.from_anchors([ROOT.pem])
STRANGER = Authority.root("Stranger").issue().signer
LATER = ProductKey("example", "def", "s2", PRODUCT.name, format_time(NOW - 5 * DAY))
ELSEWHERE = ProductKey("example", "def", "mirror", PRODUCT.name, PRODUCT.generation)
OTHER_NAME = ProductKey("example", "def", "s2", "S2B_T33UVQ.SAFE.zip", PRODUCT.generation)


def judged(candidate: Candidate, *traces: Trace, trust: Trust = TRUST) -> Judgement:
    """The judgement, which must not depend on the order of the traces."""
    evidence = [Evidence(trace) for trace in traces]
    judgement = judge(candidate, evidence, trust, NOW)
    for order in itertools.islice(itertools.permutations(evidence), 1, 7):
        again = judge(candidate, order, trust, NOW)
        assert (again.verdict, again.product, again.origin) == (
            judgement.verdict,
            judgement.product,
            judgement.origin,
        )
    return judgement


def verdict(candidate: Candidate, *traces: Trace) -> Verdict:
    return judged(candidate, *traces).verdict


def kinds(judgement: Judgement) -> set[type]:
    return {type(fault) for fault in judgement.faults}


class TestWhatSpeaks:
    def test_no_evidence_is_unknown(self) -> None:
        assert judged(file()).verdict is Verdict.UNKNOWN
        assert judged(file()).faults == ()

    @pytest.mark.parametrize("event", [Event.CREATE, Event.COPY, Event.VERIFY])
    def test_a_word_on_good_bytes_makes_a_file_genuine(self, event: Event) -> None:
        judgement = judged(file(), made(SITE, event))
        assert judgement.verdict is Verdict.GENUINE
        assert judgement.product == PRODUCT
        assert judgement.subject == SITE.subject
        assert (judgement.time, judgement.time_source) == (NOW, "now")

    @pytest.mark.parametrize("event", [Event.CORRUPT, Event.LOST, Event.DELETE, Event.OBSOLETE])
    def test_bad_news_alone_makes_nothing_genuine(self, event: Event) -> None:
        judgement = judged(file(), made(SITE, event))
        assert judgement.verdict is Verdict.UNKNOWN
        assert kinds(judgement) == {faults.NobodyVouches}

    @pytest.mark.parametrize("event", [Event.CORRUPT, Event.LOST, Event.DELETE])
    def test_the_fate_of_a_replica_does_not_condemn_the_file(self, event: Event) -> None:
        assert verdict(file(), made(SITE), made(SITE, event)) is Verdict.GENUINE

    def test_a_copy_without_bytes_makes_nothing_genuine(self) -> None:
        recorded = made(SITE, Event.COPY, method="none", observed=None)
        assert verdict(file(), recorded) is Verdict.UNKNOWN
        assert verdict(file(), recorded, made(SITE)) is Verdict.GENUINE

    def test_a_weak_digest_makes_nothing_genuine(self) -> None:
        weak = made(SITE, Event.COPY, method="transfer", hash="1a2b3c4d", hash_algorithm="ADLER32")
        same = file(hashes={"ADLER32": "1a2b3c4d", "BLAKE3": HASH})
        assert verdict(same, weak) is Verdict.UNKNOWN
        assert verdict(same, weak, made(SITE)) is Verdict.GENUINE

    def test_a_corrupt_replica_with_the_found_bytes_is_tampered(self) -> None:
        assert verdict(file(OTHER), made(SITE), made(SITE, Event.CORRUPT)) is Verdict.TAMPERED

    def test_obsolete_makes_a_genuine_file_obsolete(self) -> None:
        obsolete = made(SITE, Event.OBSOLETE, obsolescence="wrong calibration")
        judgement = judged(file(), made(SITE), obsolete)
        assert judgement.verdict is Verdict.OBSOLETE
        assert "wrong calibration" in {fault.found for fault in judgement.faults}
        assert verdict(file(OTHER), made(SITE), obsolete) is Verdict.TAMPERED


class TestWithdrawal:
    CREATE = made(SITE)
    OBSOLETE = made(SITE, Event.OBSOLETE)

    def test_a_withdrawn_create_leaves_a_revoked_file(self) -> None:
        revoke = made(SITE, Event.REVOKE, revokes=self.CREATE.id)
        judgement = judged(file(), self.CREATE, revoke)
        assert judgement.verdict is Verdict.REVOKED
        assert kinds(judgement) == {faults.WithdrawnOrigin, faults.Withdrawn}

    def test_copies_of_a_withdrawn_create_go_with_it(self) -> None:
        revoke = made(SITE, Event.REVOKE, revokes=self.CREATE.id)
        assert verdict(file(), self.CREATE, revoke, made(SITE, Event.COPY)) is Verdict.REVOKED

    def test_another_create_of_the_same_bytes_stands(self) -> None:
        revoke = made(SITE, Event.REVOKE, revokes=self.CREATE.id)
        assert verdict(file(), self.CREATE, revoke, made(PRODUCER)) is Verdict.GENUINE

    def test_a_withdrawn_obsolete_is_undone(self) -> None:
        undo = made(SITE, Event.REVOKE, revokes=self.OBSOLETE.id)
        assert verdict(file(), self.CREATE, self.OBSOLETE) is Verdict.OBSOLETE
        assert verdict(file(), self.CREATE, self.OBSOLETE, undo) is Verdict.GENUINE

    def test_a_withdrawn_withdrawal_is_undone(self) -> None:
        first = made(SITE, Event.REVOKE, revokes=self.CREATE.id)
        second = made(SITE, Event.REVOKE, revokes=first.id)
        third = made(SITE, Event.REVOKE, revokes=second.id)
        assert verdict(file(), self.CREATE, first, second) is Verdict.GENUINE
        assert verdict(file(), self.CREATE, first, second, third) is Verdict.REVOKED

    def test_withdrawals_in_a_circle_withdraw_nothing(self) -> None:
        ids = ["00000000-0000-4000-8000-00000000000" + n for n in "12"]
        one = made(SITE, Event.REVOKE, event_id=ids[0], revokes=ids[1])
        two = made(SITE, Event.REVOKE, event_id=ids[1], revokes=ids[0])
        itself = made(SITE, Event.REVOKE, event_id=self.CREATE.id, revokes=self.CREATE.id)
        assert verdict(file(), self.CREATE, one, two) is Verdict.GENUINE
        assert len(history_of([self.CREATE, one, two]).traces) == 3
        assert verdict(file(), self.CREATE, itself) is Verdict.GENUINE

    def test_a_withdrawal_reaches_no_other_product(self) -> None:
        foreign = made(SITE, Event.REVOKE, product=ELSEWHERE, revokes=self.CREATE.id)
        assert verdict(file(did=PRODUCT.did), self.CREATE, foreign) is Verdict.GENUINE

    def test_a_withdrawal_without_the_right_is_dropped(self) -> None:
        federation = """
            [[member]]
            name = "site"
            ca = "ca"
            subject = "URI:https://site-a.example/*"
            rses = ["*"]
            [[member]]
            name = "producer"
            ca = "ca"
            subject = "DN:CN=producer,O=Test Federation"
            revoke = ["s2"]
            """
        trust = Trust.from_federation(federation, lambda _location: ROOT.pem)
        by_site = made(SITE, Event.REVOKE, revokes=self.CREATE.id)
        by_producer = made(PRODUCER, Event.REVOKE, revokes=self.CREATE.id)
        judgement = judged(file(), self.CREATE, by_site, trust=trust)
        assert judgement.verdict is Verdict.GENUINE
        assert kinds(judgement) == {faults.OutsideRights}
        assert judged(file(), self.CREATE, by_producer, trust=trust).verdict is Verdict.REVOKED

    def test_outside_rucio_a_member_withdraws_only_its_own(self) -> None:
        member = '[[member]]\nname = "{0}"\nca = "ca"\nsubject = "DN:CN={0},O=Test Federation"\noutside = true\n'
        text = member.format("recorder") + member.format("producer")
        trust = Trust.from_federation(text, lambda _location: ROOT.pem)
        create = made(SITE, product=None)
        for signer, expected in ((PRODUCER, Verdict.GENUINE), (SITE, Verdict.REVOKED)):
            revoke = made(signer, Event.REVOKE, product=None, revokes=create.id)
            assert judged(file(), create, revoke, trust=trust).verdict is expected

    def test_of_one_text_signed_by_two_members_each_withdraws_its_own(self) -> None:
        member = '[[member]]\nname = "{0}"\nca = "ca"\nsubject = "DN:CN={0},O=Test Federation"\noutside = true\n'
        text = member.format("recorder") + member.format("producer")
        trust = Trust.from_federation(text, lambda _location: ROOT.pem)
        said = json.dumps({"hash": HASH, "name": PRODUCT.name, "size": 735683295, "event": "CREATE"})
        both = parse_traces(json.dumps([signed_raw(said, signer) for signer in (SITE, PRODUCER)]).encode())
        one, two = (made(s, Event.REVOKE, product=None, revokes=both[0].id) for s in (SITE, PRODUCER))
        assert judged(file(), *both, one, trust=trust).verdict is Verdict.GENUINE
        assert judged(file(), *both, one, two, trust=trust).verdict is Verdict.REVOKED

    def test_a_withdrawal_nobody_can_check_leaves_it_undecided(self) -> None:
        old = Authority.root("Old Root")
        member = '[[member]]\nname = "A"\nca = ["new", "old"]\nsubject = "*"\noutside = true\ncrl = ["n", "o"]\n'
        files = {"new": ROOT.pem, "old": old.pem, "n": ROOT.crl(), "o": old.crl(at=NOW - 40 * DAY)}
        create = made(SITE, product=None)
        revoke = made(old.issue().signer, Event.REVOKE, product=None, revokes=create.id)
        judgement = judged(file(), create, revoke, trust=Trust.from_federation(member, files.__getitem__))
        assert judgement.verdict is Verdict.UNDECIDED
        assert kinds(judgement) == {faults.CrlUnusable}


class TestOrigin:
    def test_a_producers_word_goes_before_a_sites(self) -> None:
        site, producer = made(SITE, time=format_time(NOW - 9 * DAY)), declared(PRODUCER)
        assert origin_of([site, producer]) == producer
        assert judged(file(), site, producer).origin == producer

    def test_a_site_that_contradicts_the_producer_makes_a_dispute(self) -> None:
        producer = declared(PRODUCER, hash=OTHER)
        for site in (made(SITE), made(SITE, adopted=True)):
            for digest in (HASH, OTHER):
                judgement = judged(file(digest), site, producer)
                assert judgement.verdict is Verdict.DISPUTED
                named = {f.trace for f in judgement.faults if isinstance(f, faults.DisputedOrigin)}
                assert named == {site.id, producer.id}
            revoke = made(PRODUCER, Event.REVOKE, revokes=site.id)
            assert verdict(file(OTHER), site, producer, revoke) is Verdict.GENUINE
            assert verdict(file(HASH), site, producer, revoke) is Verdict.REVOKED

    def test_copies_that_contradict_the_producer_make_no_dispute(self) -> None:
        producer, copy = declared(PRODUCER, hash=OTHER), made(SITE, Event.VERIFY, adopted=True)
        judgement = judged(file(OTHER), copy, producer)
        assert judgement.verdict is Verdict.GENUINE
        assert kinds(judgement) == {faults.Contradiction}
        assert verdict(file(HASH), copy, producer) is Verdict.TAMPERED

    def test_a_site_alone_vouches_for_no_digest_the_producer_did_not_give(self) -> None:
        producer, site = declared(PRODUCER, hash=OTHER, hash_algorithm="SHA256"), made(SITE)
        judgement = judged(file(), producer, site)
        assert judgement.verdict is Verdict.UNDECIDED
        assert judgement.missing == {"SHA256"}
        assert verdict(file(hashes={"BLAKE3": HASH, "SHA256": OTHER}), producer, site) is Verdict.GENUINE
        assert verdict(file(hashes={"BLAKE3": HASH, "SHA256": HASH}), producer, site) is Verdict.DISPUTED

    def test_an_observed_creation_goes_before_an_adopted_one(self) -> None:
        observed, adopted = made(SITE), made(SITE, adopted=True, time=format_time(NOW - 9 * DAY))
        assert origin_of([adopted, observed]) == observed
        assert origin_of([adopted, made(SITE, Event.COPY)]) == adopted

    def test_within_a_rank_the_oldest_statement_is_the_origin(self) -> None:
        first, second = made(SITE, time=format_time(NOW - 3 * DAY)), made(SITE, time=format_time(NOW - 2 * DAY))
        assert origin_of([second, first]) == first

    def test_a_copy_before_its_creation_joins_the_origin_later(self) -> None:
        copy, create = made(SITE, Event.COPY, time=format_time(NOW - 9 * DAY)), made(SITE)
        assert origin_of([copy]) == copy
        assert origin_of([copy, create]) == create

    def test_two_creations_with_different_digests_are_disputed(self) -> None:
        one, two = made(SITE), made(PRODUCER, hash=OTHER)
        for digest in (HASH, OTHER):
            judgement = judged(file(digest), one, two)
            assert judgement.verdict is Verdict.DISPUTED
            assert {f.trace for f in judgement.faults if isinstance(f, faults.DisputedOrigin)} == {one.id, two.id}
        assert verdict(file("a" * 64), one, two) is Verdict.TAMPERED
        assert origin_of([one, two]) is None

    def test_a_dispute_ends_when_one_is_withdrawn(self) -> None:
        one, two = made(SITE), made(PRODUCER, hash=OTHER)
        revoke = made(SITE, Event.REVOKE, revokes=two.id)
        assert verdict(file(HASH), one, two, revoke) is Verdict.GENUINE
        assert verdict(file(OTHER), one, two, revoke) is Verdict.REVOKED

    def test_a_dispute_hidden_by_different_algorithms_is_seen_by_the_file(self) -> None:
        one = made(SITE)
        two = made(PRODUCER, hash=OTHER, hash_algorithm="SHA256")
        assert verdict(file(hashes={"BLAKE3": HASH, "SHA256": HASH}), one, two) is Verdict.DISPUTED
        assert verdict(file(hashes={"BLAKE3": HASH, "SHA256": OTHER}), one, two) is Verdict.GENUINE

    def test_a_copy_of_other_bytes_than_the_origins_is_only_told(self) -> None:
        judgement = judged(file(), made(SITE), made(SITE, Event.COPY, hash=OTHER))
        assert judgement.verdict is Verdict.GENUINE
        assert kinds(judgement) == {faults.Contradiction}
        assert verdict(file(OTHER), made(SITE), made(SITE, Event.COPY, hash=OTHER)) is Verdict.TAMPERED


class TestMatching:
    def test_a_renamed_file_is_known_by_its_digest(self) -> None:
        judgement = judged(file(name="renamed.zip"), made(SITE))
        assert judgement.verdict is Verdict.GENUINE
        assert judgement.product == PRODUCT

    def test_other_bytes_under_a_known_name_are_tampered(self) -> None:
        judgement = judged(file(OTHER, size=7), made(SITE))
        assert judgement.verdict is Verdict.TAMPERED
        assert judgement.product == PRODUCT
        assert {(f.what, f.expected, f.found) for f in judgement.faults} == {
            ("size", "735683295", "7"),
            ("BLAKE3", HASH, OTHER),
        }

    def test_the_same_digest_with_another_size_is_tampered(self) -> None:
        assert verdict(file(size=7), made(SITE)) is Verdict.TAMPERED

    def test_an_unknown_file_is_unknown(self) -> None:
        assert verdict(file(OTHER, name="x.zip", size=1), made(SITE)) is Verdict.UNKNOWN

    def test_content_of_one_product_under_the_name_of_another(self) -> None:
        swapped = file(name=OTHER_NAME.name)
        judgement = judged(swapped, made(SITE), made(SITE, product=OTHER_NAME, hash=OTHER))
        assert judgement.verdict is Verdict.TAMPERED
        assert judgement.product == PRODUCT
        assert faults.ContentUnderOtherName in kinds(judgement)

    def test_several_products_of_the_name_are_undecided_and_listed(self) -> None:
        judgement = judged(file("a" * 64), made(SITE), made(SITE, product=ELSEWHERE, hash=OTHER))
        assert judgement.verdict is Verdict.UNDECIDED
        listed = {fault.found for fault in judgement.faults if isinstance(fault, faults.AmbiguousName)}
        assert len(listed) == 2
        assert any("mirror:" in item for item in listed)

    def test_several_products_of_one_content_are_as_one(self) -> None:
        traces = made(SITE), made(SITE, product=ELSEWHERE), made(SITE, product=None)
        assert verdict(file(), *traces) is Verdict.GENUINE
        assert verdict(file(OTHER), *traces) is Verdict.TAMPERED

    def test_several_products_with_different_fates_are_undecided(self) -> None:
        traces = made(SITE), made(SITE, product=ELSEWHERE), made(SITE, Event.OBSOLETE, product=ELSEWHERE)
        judgement = judged(file(), *traces)
        assert judgement.verdict is Verdict.UNDECIDED
        assert kinds(judgement) == {faults.SeveralProducts}
        assert verdict(file(did=PRODUCT.did), *traces) is Verdict.GENUINE
        assert verdict(file(did=ELSEWHERE.did), *traces) is Verdict.OBSOLETE

    def test_what_is_said_outside_rucio_is_told_beside_it(self) -> None:
        outside = made(SITE, Event.OBSOLETE, product=None)
        judgement = judged(file(), made(SITE), made(SITE, product=None), outside)
        assert judgement.verdict is Verdict.GENUINE
        assert kinds(judgement) == {faults.MarkedObsolete}

    def test_an_older_generation_is_known_for_what_it_is(self) -> None:
        traces = made(SITE), made(SITE, product=LATER, hash=OTHER)
        judgement = judged(file(), *traces)
        assert (judgement.verdict, judgement.product) == (Verdict.GENUINE, PRODUCT)
        assert kinds(judgement) == {faults.NewerGeneration}
        assert judged(file(OTHER), *traces).product == LATER
        assert verdict(file("a" * 64), *traces) is Verdict.TAMPERED

    def test_the_newest_generation_of_the_same_bytes_counts(self) -> None:
        traces = made(SITE), made(SITE, Event.OBSOLETE), made(SITE, product=LATER)
        judgement = judged(file(), *traces)
        assert (judgement.verdict, judgement.product) == (Verdict.GENUINE, LATER)

    def test_by_its_did_only_the_newest_generation_counts(self) -> None:
        traces = made(SITE), made(SITE, product=LATER, hash=OTHER)
        assert verdict(file(did=PRODUCT.did), *traces) is Verdict.TAMPERED
        assert verdict(file(OTHER, did=PRODUCT.did), *traces) is Verdict.GENUINE

    def test_by_its_did_a_file_is_held_against_nothing_else(self) -> None:
        traces = made(SITE), made(SITE, product=OTHER_NAME, hash=OTHER)
        judgement = judged(file(OTHER, did=PRODUCT.did), *traces)
        assert judgement.verdict is Verdict.TAMPERED
        assert faults.ContentUnderOtherName in kinds(judgement)
        assert verdict(file(did="s2:nobody"), *traces) is Verdict.UNKNOWN
        assert verdict(file(name="renamed", did=PRODUCT.did), *traces) is Verdict.GENUINE

    def test_a_digest_nobody_computed_leaves_it_undecided(self) -> None:
        judgement = judged(file(hashes={"SHA256": HASH}), made(SITE))
        assert judgement.verdict is Verdict.UNDECIDED
        assert judgement.missing == {"BLAKE3"}
        assert verdict(file(hashes={}), made(SITE)) is Verdict.UNDECIDED
        assert verdict(file(hashes={"SHA256": HASH}, size=1), made(SITE)) is Verdict.TAMPERED

    def test_every_digest_known_on_both_sides_has_to_agree(self) -> None:
        trace = made(SITE, hashes={"MD5": "0" * 32})
        assert verdict(file(hashes={"BLAKE3": HASH, "MD5": "0" * 32}), trace) is Verdict.GENUINE
        assert verdict(file(hashes={"BLAKE3": HASH, "MD5": "1" * 32}), trace) is Verdict.TAMPERED
        assert verdict(file(hashes={"MD5": "0" * 32}), trace) is Verdict.UNDECIDED

    def test_a_member_of_an_archive_is_known_by_its_name_and_digest(self) -> None:
        trace = made(SITE, contents=(Content("X.SAFE/IMG/B02.jp2", OTHER),))
        member = Candidate(file="B02.jp2", base_name="B02.jp2", size=9, hashes={"BLAKE3": OTHER})
        judgement = judged(member, trace)
        assert (judgement.verdict, judgement.product) == (Verdict.GENUINE, PRODUCT)
        assert judgement.member == "X.SAFE/IMG/B02.jp2"
        assert verdict(member, trace, made(SITE, Event.OBSOLETE)) is Verdict.OBSOLETE
        assert verdict(replace(member, base_name="B03.jp2"), trace) is Verdict.UNKNOWN

    def test_the_members_that_differ_are_named(self) -> None:
        trace = made(SITE, contents=(Content("a", HASH), Content("b", HASH)))
        judgement = judged(file(OTHER, contents={"a": HASH, "b": OTHER, "c": OTHER}), trace)
        assert {f.what for f in judgement.faults if isinstance(f, faults.DifferentContent)} == {"b", "c"}


class TestDropped:
    """What does not count never turns a verdict; it only names the reason when nothing else is left."""

    EXPIRED = ROOT.issue("old", since=NOW - 50 * DAY, until=NOW - DAY).signer

    def damaged(self, trace: Trace) -> Trace:
        [damaged] = parse_traces(dumps([trace]).encode().replace(b'"event":"', b'"event":"D', 1))
        return damaged

    def dropped(self) -> list[Trace]:
        make: list[Any] = [made(STRANGER, event, hash=d) for event in Event for d in (HASH, OTHER) if event != "REVOKE"]
        old = made(self.EXPIRED, Event.OBSOLETE, time=format_time(NOW - 20 * DAY))
        return [
            *make,
            old,
            replace(made(SITE, hash=OTHER), signature=b""),
            replace(made(SITE, hash=OTHER), signature=b"x"),
        ]

    def test_dropped_evidence_turns_no_verdict(self) -> None:
        create = made(SITE)
        sets = {
            Verdict.GENUINE: ([create], file()),
            Verdict.TAMPERED: ([create], file(OTHER)),
            Verdict.OBSOLETE: ([create, made(SITE, Event.OBSOLETE)], file()),
            Verdict.DISPUTED: ([create, made(SITE, hash=OTHER)], file()),
            Verdict.REVOKED: ([create, made(SITE, Event.REVOKE, revokes=create.id)], file()),
        }
        dropped = [*self.dropped(), made(STRANGER, Event.REVOKE, revokes=create.id)]
        for expected, (traces, candidate) in sets.items():
            assert judged(candidate, *traces).verdict is expected
            judgement = judged(candidate, *traces, *dropped)
            assert judgement.verdict is expected
            assert {trace.id for trace in dropped} <= {fault.trace for fault in judgement.faults}

    def test_the_reason_is_named_when_nothing_is_left(self) -> None:
        stranger = made(STRANGER)
        altered = replace(made(SITE), signature=b"x")
        expired = made(self.EXPIRED, time=format_time(NOW - 20 * DAY))
        assert verdict(file(), altered) is Verdict.TAMPERED
        assert verdict(file(), altered, stranger) is Verdict.UNTRUSTED
        assert verdict(file(), altered, stranger, expired) is Verdict.EXPIRED
        assert verdict(file(), replace(made(SITE), signature=b"")) is Verdict.UNTRUSTED

    def test_dropped_traces_of_other_files_say_nothing(self) -> None:
        assert verdict(file(OTHER, name="x.zip"), made(STRANGER)) is Verdict.UNKNOWN
        assert verdict(file(did="s2:x"), made(STRANGER)) is Verdict.UNKNOWN

    @settings(max_examples=30)
    @given(st.sets(st.integers(0, 16)))
    def test_any_choice_of_dropped_evidence_turns_no_verdict(self, chosen: set[int]) -> None:
        dropped = [trace for number, trace in enumerate(self.dropped()) if number in chosen]
        evidence = [Evidence(trace) for trace in (*dropped, made(SITE))]
        assert judge(file(), evidence, TRUST, NOW).verdict is Verdict.GENUINE
        assert judge(file(OTHER), evidence, TRUST, NOW).verdict is Verdict.TAMPERED


def pool() -> list[Trace]:
    """Traces of one product that agree, contradict, withdraw and undo each other."""
    create, rival, obsolete = made(SITE), made(PRODUCER, hash=OTHER), made(SITE, Event.OBSOLETE)
    revokes = [made(SITE, Event.REVOKE, revokes=trace.id) for trace in (create, rival, obsolete)]
    undo = [made(SITE, Event.REVOKE, revokes=trace.id) for trace in revokes]
    rest = [made(SITE, event) for event in (Event.COPY, Event.VERIFY, Event.CORRUPT, Event.LOST, Event.DELETE)]
    return [create, rival, obsolete, declared(PRODUCER), made(SITE, adopted=True), *revokes, *undo, *rest]


POOL = pool()


@settings(max_examples=150)
@given(st.lists(st.sampled_from(POOL), unique_by=lambda t: t.id), st.randoms(use_true_random=False))
def test_the_order_of_arrival_never_matters(traces: list[Trace], random: Any) -> None:
    shuffled = random.sample(traces, len(traces))
    assert history_of(shuffled) == history_of(traces)
    for digest in (HASH, OTHER, "a" * 64):
        one, two = (judge(file(digest), [Evidence(t) for t in ts], TRUST, NOW) for ts in (traces, shuffled))
        assert (one.verdict, one.product, one.origin) == (two.verdict, two.product, two.origin)


@settings(max_examples=100)
@given(st.lists(st.sampled_from(POOL), unique_by=lambda t: t.id))
def test_bytes_nobody_spoke_of_are_never_good(traces: list[Trace]) -> None:
    judgement = judge(file("a" * 64), [Evidence(t) for t in traces], TRUST, NOW)
    assert judgement.verdict not in (Verdict.GENUINE, Verdict.OBSOLETE)


def test_two_traces_with_one_id_do_not_hide_each_other() -> None:
    """An id taken twice is refused by a store; a verifier sees both, and a withdrawal of it reaches both."""
    create = made(SITE)
    double = made(SITE, Event.VERIFY, event_id=create.id)
    revoke = made(SITE, Event.REVOKE, revokes=create.id)
    assert verdict(file(), create, double) is Verdict.GENUINE
    assert verdict(file(), create, double, revoke) is Verdict.REVOKED


def test_one_trace_found_twice_is_judged_by_its_registration() -> None:
    old = ROOT.issue("old", since=NOW - 50 * DAY, until=NOW - DAY).signer
    trace = made(old, time=format_time(NOW - 20 * DAY))
    judgement = judge(file(), [Evidence(trace), Evidence(trace, NOW - 10 * DAY)], TRUST, NOW)
    assert judgement.verdict is Verdict.GENUINE
    assert (judgement.time, judgement.time_source) == (NOW - 10 * DAY, "registered")


def test_many_files_are_judged_by_evidence_checked_once() -> None:
    keys = [ProductKey("example", "def", "s2", f"{n}.zip", PRODUCT.generation) for n in range(300)]
    traces = [made(SITE, product=key, hash=f"{n:064x}") for n, key in enumerate(keys)]
    checked = check_evidence([Evidence(trace) for trace in traces], TRUST, NOW)
    for n, key in enumerate(keys):
        assert checked.judge(file(f"{n:064x}", name=key.name)).product == key


def test_exit_codes_and_which_one_speaks_for_several_files() -> None:
    assert EXIT_CODES.keys() == set(Verdict)
    assert worst([]) is Verdict.UNKNOWN
    assert worst([Verdict.GENUINE, Verdict.OBSOLETE]) is Verdict.OBSOLETE
    assert worst([Verdict.OBSOLETE, Verdict.UNKNOWN, Verdict.GENUINE]) is Verdict.UNKNOWN
    assert worst([Verdict.UNDECIDED, Verdict.TAMPERED]) is Verdict.TAMPERED


def test_the_digests_to_compute_are_those_the_traces_name() -> None:
    assert algorithms_for([made(SITE), made(SITE, hash_algorithm="SHA3")]) == ("BLAKE3", "SHA3")
    assert algorithms_for([]) == ()
