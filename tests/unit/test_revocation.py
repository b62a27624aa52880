"""Certificates withdrawn by their authority: since when, why, and what of theirs still stands."""

from datetime import datetime
from typing import Any

import pytest
from authority import DAY, NOW, Authority, file, made, name, usage
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import ReasonFlags

from rucio_trace import faults
from rucio_trace.checking import Refused, check_trace
from rucio_trace.envelope import Trace
from rucio_trace.errors import ConfigurationError
from rucio_trace.identity import Trust
from rucio_trace.trace import Event, format_time
from rucio_trace.verify import Evidence, Verdict, judge

ROOT = Authority.root()
ISSUED = ROOT.issue()
TRACE = made(ISSUED.signer, time=format_time(NOW - 20 * DAY))
REVOKED_AT = NOW - 10 * DAY


def trust(*crls: bytes) -> Trust:
    return Trust.from_anchors([ROOT.pem], crls)


def kinds(trust: Trust, trace: Trace = TRACE, **options: Any) -> set[type]:
    try:
        check_trace(trace, trust, NOW, **options)
    except Refused as refused:
        return {type(fault) for fault in refused.faults}
    return set()


def entry(
    reason: ReasonFlags | None, at: datetime = REVOKED_AT
) -> tuple[x509.Certificate, datetime, ReasonFlags | None]:
    return ISSUED.certificate, at, reason


def test_a_certificate_on_no_list_is_good() -> None:
    assert kinds(trust(ROOT.crl())) == set()
    other = ROOT.issue().certificate
    assert kinds(trust(ROOT.crl((other, REVOKED_AT, None)))) == set()


@pytest.mark.parametrize(
    "reason",
    [
        None,
        ReasonFlags.unspecified,
        ReasonFlags.key_compromise,
        ReasonFlags.ca_compromise,
        ReasonFlags.aa_compromise,
        ReasonFlags.privilege_withdrawn,
        ReasonFlags.certificate_hold,
    ],
)
def test_a_key_in_strange_hands_takes_everything_with_it(reason: ReasonFlags | None) -> None:
    held = trust(ROOT.crl(entry(reason)))
    assert kinds(held) == {faults.CertificateRevoked}
    assert kinds(held, registered_at=REVOKED_AT - DAY) == set()
    assert kinds(held, registered_at=REVOKED_AT) == {faults.CertificateRevoked}


@pytest.mark.parametrize(
    "reason", [ReasonFlags.superseded, ReasonFlags.cessation_of_operation, ReasonFlags.affiliation_changed]
)
def test_a_key_that_stayed_safe_leaves_what_it_signed_before(reason: ReasonFlags) -> None:
    held = trust(ROOT.crl(entry(reason)))
    assert kinds(held) == set()
    later = made(ISSUED.signer, time=format_time(REVOKED_AT + DAY))
    assert kinds(held, later) == {faults.CertificateRevoked}


def test_the_date_of_compromise_counts_before_that_of_the_revocation() -> None:
    held = trust(ROOT.crl(entry(ReasonFlags.key_compromise), invalid_since=NOW - 30 * DAY))
    assert kinds(held, registered_at=REVOKED_AT - DAY) == {faults.CertificateRevoked}


def test_a_hold_ends_when_the_newest_list_drops_it() -> None:
    hold = ROOT.crl(entry(ReasonFlags.certificate_hold), at=NOW - 9 * DAY)
    assert kinds(trust(hold)) == {faults.CertificateRevoked}
    assert kinds(trust(hold, ROOT.crl(at=NOW - DAY))) == set()
    assert kinds(trust(ROOT.crl(at=NOW - 12 * DAY), hold)) == {faults.CertificateRevoked}


def test_an_entry_of_removal_revokes_nothing() -> None:
    assert kinds(trust(ROOT.crl(entry(ReasonFlags.remove_from_crl)))) == set()


def test_a_permanent_entry_outlives_the_list_that_drops_it() -> None:
    old = ROOT.crl(entry(ReasonFlags.key_compromise), at=NOW - 9 * DAY)
    assert kinds(trust(old, ROOT.crl(at=NOW - DAY))) == {faults.CertificateRevoked}


def test_a_list_past_its_next_update_decides_nothing() -> None:
    stale = trust(ROOT.crl(at=NOW - 40 * DAY, days=30))
    assert kinds(stale) == {faults.CrlUnusable}
    assert kinds(stale, allow_stale_crl=True) == set()


def test_a_stale_list_still_revokes() -> None:
    stale = trust(ROOT.crl(entry(ReasonFlags.key_compromise), at=NOW - 40 * DAY, days=30))
    assert kinds(stale) == {faults.CertificateRevoked}


def test_a_list_of_another_hand_decides_nothing() -> None:
    forger = Authority.root()  # the same name, another key
    assert forger.certificate.subject == ROOT.certificate.subject
    assert kinds(trust(forger.crl())) == {faults.CrlUnusable}
    assert kinds(trust(forger.crl(entry(ReasonFlags.key_compromise)), ROOT.crl())) == set()


def test_a_list_of_another_authority_does_not_answer() -> None:
    assert kinds(trust(Authority.root("Another").crl())) == {faults.CrlUnusable}


def test_a_list_from_the_future_does_not_answer() -> None:
    assert kinds(trust(ROOT.crl(at=NOW + DAY))) == {faults.CrlUnusable}


def test_partial_lists_do_not_answer() -> None:
    delta = ROOT.crl(extensions=((x509.DeltaCRLIndicator(1), True),))
    part = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)
    for partial in (delta, ROOT.crl(extensions=((part, True),))):
        assert kinds(trust(partial)) == {faults.CrlUnusable}


def test_an_authority_not_meant_to_revoke_does_not_answer() -> None:
    root = Authority.root("Mute", key_usage=usage(key_cert_sign=True))
    held = Trust.from_anchors([root.pem], [root.crl()])
    assert kinds(held, made(root.issue().signer)) == {faults.CrlUnusable}


def test_a_revoked_intermediate_takes_its_signers_with_it() -> None:
    issuing = ROOT.below()
    trace = made(issuing.issue().signer)
    compromised = ROOT.crl((issuing.certificate, REVOKED_AT, ReasonFlags.ca_compromise))
    assert kinds(trust(issuing.crl()), trace) == set()
    assert kinds(trust(issuing.crl(), compromised), trace) == {faults.CertificateRevoked}


def test_lists_in_der_and_several_in_one_file_are_read() -> None:
    issuing = ROOT.below()
    der = x509.load_pem_x509_crl(issuing.crl()).public_bytes(serialization.Encoding.DER)
    trace = made(issuing.issue().signer)
    assert kinds(trust(der, ROOT.crl()), trace) == set()
    assert kinds(trust(issuing.crl() + ROOT.crl()), trace) == set()


@pytest.mark.parametrize("junk", [b"", b"junk", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", ROOT.pem])
def test_junk_is_a_mistake_of_the_operators(junk: bytes) -> None:
    with pytest.raises(ConfigurationError, match="revocation list"):
        trust(junk)


def test_a_federation_member_that_names_a_list_needs_one() -> None:
    member = '[[member]]\nname = "A"\nca = "ca"\nsubject = "*"\nrses = ["*"]\n'
    files = {"ca": ROOT.pem, "own": ROOT.crl(), "other": Authority.root("Another").crl()}
    assert kinds(Trust.from_federation(member, files.__getitem__)) == set()
    assert kinds(Trust.from_federation(member + 'crl = "own"', files.__getitem__)) == set()
    assert kinds(Trust.from_federation(member + 'crl = "other"', files.__getitem__)) == {faults.CrlUnusable}


class TestVerdicts:
    STALE = trust(ROOT.crl(at=NOW - 40 * DAY, days=30))

    def test_a_stale_list_leaves_the_file_undecided(self) -> None:
        for candidate in (file(), file("a" * 64)):
            assert judge(candidate, [Evidence(TRACE)], self.STALE, NOW).verdict is Verdict.UNDECIDED

    def test_a_stale_list_that_changes_nothing_is_only_told(self) -> None:
        other = Authority.root("Another")
        both = Trust.from_anchors([ROOT.pem, other.pem], [ROOT.crl(at=NOW - 40 * DAY, days=30), other.crl()])
        copy = made(other.issue().signer, Event.COPY)
        judgement = judge(file(), [Evidence(TRACE), Evidence(copy)], both, NOW)
        assert judgement.verdict is Verdict.GENUINE
        assert faults.CrlUnusable in {type(fault) for fault in judgement.faults}

    def test_an_obsolete_that_cannot_be_checked_is_not_ignored(self) -> None:
        other = Authority.root("Another")
        both = Trust.from_anchors([ROOT.pem, other.pem], [ROOT.crl(at=NOW - 40 * DAY, days=30), other.crl()])
        obsolete = made(ISSUED.signer, Event.OBSOLETE)
        create = made(other.issue().signer)
        evidence = [Evidence(create), Evidence(obsolete)]
        assert judge(file(), evidence, both, NOW).verdict is Verdict.UNDECIDED
        assert judge(file(), evidence, both, NOW, allow_stale_crl=True).verdict is Verdict.OBSOLETE

    def test_a_revoked_signer_is_untrusted(self) -> None:
        held = trust(ROOT.crl(entry(ReasonFlags.key_compromise)))
        assert judge(file(), [Evidence(TRACE)], held, NOW).verdict is Verdict.UNTRUSTED
        known = [Evidence(TRACE, REVOKED_AT - DAY)]
        judgement = judge(file(), known, held, NOW)
        assert judgement.verdict is Verdict.GENUINE
        assert (judgement.time, judgement.time_source) == (REVOKED_AT - DAY, "registered")


def test_the_name_of_the_authority_is_compared_as_it_is_written() -> None:
    assert name("Test Root") == ROOT.certificate.subject
