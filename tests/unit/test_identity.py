"""Who may sign, and what about."""

from datetime import datetime

import pytest
from authority import DAY, NOW, PRODUCT, Authority, _certificate, declared, made, name, usage
from cryptography import x509
from cryptography.x509.oid import NameOID

from rucio_trace import faults
from rucio_trace.certificates import load, load_pem
from rucio_trace.checking import Refused, check_trace
from rucio_trace.envelope import Trace
from rucio_trace.errors import ConfigurationError, Malformed
from rucio_trace.identity import Patterns, SubjectPattern, Trust
from rucio_trace.trace import Event, ProductKey, format_time

ROOT_A, ROOT_B = Authority.root("Root A"), Authority.root("Root B")
SITE_A = ROOT_A.issue(uri="https://site-a.example/recorder").signer
SITE_B = ROOT_B.issue(uri="https://site-b.example/recorder").signer
PRODUCER = ROOT_A.issue("producer").signer
FILES = {"a.pem": ROOT_A.pem, "b.pem": ROOT_B.pem}
FEDERATION = """
[[member]]
name = "A"
ca = "a.pem"
subject = "URI:https://site-a.example/*"
rses = ["SITE-A_*"]

[[member]]
name = "B"
ca = ["b.pem"]
subject = ["URI:https://site-b.example/*"]
rses = ["SITE-B_*", "SHARED"]

[[member]]
name = "Producer"
ca = "a.pem"
subject = "DN:CN=producer,O=Test Federation"
create = ["s2", "user.*"]
obsolete = ["s2"]
revoke = ["s2"]
"""
TRUST = Trust.from_federation(FEDERATION, FILES.__getitem__)


def kinds(trace: Trace, trust: Trust = TRUST, at: datetime = NOW) -> set[type]:
    """The faults for which *trace* is refused; none if it is accepted."""
    try:
        check_trace(trace, trust, at)
    except Refused as refused:
        found = refused.faults
    else:
        return set()
    assert found
    assert all(fault.trace == trace.id for fault in found)
    return {type(fault) for fault in found}


def test_each_member_speaks_within_its_rights() -> None:
    assert check_trace(made(SITE_A), TRUST, NOW).member == "A"
    assert check_trace(made(SITE_B, Event.COPY, rse="SHARED"), TRUST, NOW).member == "B"
    assert check_trace(declared(PRODUCER), TRUST, NOW).member == "Producer"


@pytest.mark.parametrize("event", [e for e in Event if e not in (Event.OBSOLETE, Event.REVOKE)])
def test_an_observation_needs_its_rse(event: Event) -> None:
    assert kinds(made(SITE_A, event)) == set()
    assert kinds(made(SITE_A, event, rse="SITE-B_DISK")) == {faults.OutsideRights}
    assert kinds(made(PRODUCER, event)) == {faults.OutsideRights}


@pytest.mark.parametrize(
    "make",
    [
        lambda signer, product: declared(signer, product=product),
        lambda signer, product: made(signer, Event.OBSOLETE, product=product),
        lambda signer, product: made(signer, Event.REVOKE, product=product, revokes="a" * 64),
    ],
)
def test_speaking_for_a_product_needs_its_scope(make: object) -> None:
    other = ProductKey("example", "def", "s2x", "x", PRODUCT.generation)
    assert kinds(make(PRODUCER, PRODUCT)) == set()  # type: ignore[operator]
    assert kinds(make(PRODUCER, other)) == {faults.OutsideRights}  # type: ignore[operator]
    assert kinds(make(SITE_A, PRODUCT)) == {faults.OutsideRights}  # type: ignore[operator]


def test_a_member_without_the_right_speaks_of_nothing_outside_rucio() -> None:
    assert kinds(made(PRODUCER, product=None)) == {faults.OutsideRights}
    allowed = FEDERATION.replace('revoke = ["s2"]', 'revoke = ["s2"]\noutside = true')
    assert kinds(made(PRODUCER, product=None), Trust.from_federation(allowed, FILES.__getitem__)) == set()


def test_one_authority_cannot_name_anothers_signers() -> None:
    thief = ROOT_A.issue(uri="https://site-b.example/recorder").signer
    assert kinds(made(thief, Event.COPY, rse="SITE-B_DISK")) == {faults.OutsidePattern}


def test_anchors_alone_mean_any_signer() -> None:
    trust = Trust.from_anchors([ROOT_A.pem + ROOT_B.pem])
    for trace in (made(SITE_A, rse="ANY"), made(SITE_B), declared(PRODUCER), made(SITE_A, product=None)):
        assert kinds(trace, trust) == set()


def test_an_anchor_named_twice_is_one() -> None:
    assert kinds(made(SITE_A), Trust.from_anchors([ROOT_A.pem, ROOT_A.pem + ROOT_A.pem])) == set()


def test_a_signer_of_two_members_has_the_rights_of_either() -> None:
    text = FEDERATION + '[[member]]\nname = "C"\nca = "a.pem"\nsubject = "*"\nrses = ["THIRD"]\n'
    trust = Trust.from_federation(text, FILES.__getitem__)
    assert check_trace(made(SITE_A), trust, NOW).member == "A"
    assert check_trace(made(SITE_A, Event.COPY, rse="THIRD"), trust, NOW).member == "C"
    assert kinds(made(SITE_A, Event.COPY, rse="FOURTH"), trust) == {faults.OutsideRights}


def test_no_anchors_and_no_members_trust_nobody() -> None:
    assert kinds(made(SITE_A), Trust.from_anchors([])) == {faults.UnknownIssuer}
    assert kinds(made(SITE_A), Trust(())) == {faults.UnknownIssuer}


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "9" * 10_000, "a = 1e", "\x00"])
def test_a_federation_file_that_is_no_toml_is_a_configuration_error(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Trust.from_federation(text, lambda _location: b"")


class TestPatterns:
    def test_a_star_stands_for_any_run_of_characters(self) -> None:
        patterns = Patterns(["a*c", "x.y"])
        assert all(patterns.match(text) for text in ("ac", "abbc", "a\nc", "x.y"))
        assert not any(patterns.match(text) for text in ("a", "acd", "xzy", "", "AC"))

    def test_an_empty_list_matches_nothing(self) -> None:
        assert not Patterns([]).match("")
        assert not Patterns([]).match("a")

    def test_stars_stand_for_any_run_and_no_name_makes_them_slow(self) -> None:
        patterns = Patterns(["a*b*a*b*c", "*x*", "ab*ba"])
        assert all(patterns.match(text) for text in ("ababc", "a-b-a-b-c", "x", "axb", "abba", "ab ba"))
        assert not any(patterns.match(text) for text in ("abab", "abc", "aba", "babc"))
        assert not patterns.match("ab" * 200_000 + "d")  # hours, if every star were tried at every place

    def test_every_uri_of_a_certificate_has_to_match(self) -> None:
        both = x509.SubjectAlternativeName(
            [x509.UniformResourceIdentifier(f"https://site-{s}.example/r") for s in "ab"]
        )
        certificate = load(ROOT_A.issue(extensions=((both, False),)).der)
        assert not SubjectPattern("URI:https://site-a.example/*").match(certificate)
        assert not SubjectPattern("URI:*").match(load(ROOT_A.issue().der))

    def test_a_star_in_a_dn_does_not_reach_over_a_comma(self) -> None:
        pattern = SubjectPattern("DN:CN=*,O=Site A")
        assert pattern.match(load(ROOT_A.issue(subject=name("anyone", "Site A")).der))
        forged = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x,O=Site A")])
        assert not pattern.match(load(ROOT_A.issue(subject=forged).der))
        extended = x509.Name([*name("x", "Site A"), x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "y")])
        assert not pattern.match(load(ROOT_A.issue(subject=extended).der))

    @pytest.mark.parametrize("pattern", ["", "site-a", "URI:", "DN:", "DN:CN", "EMAIL:x@y"])
    def test_a_pattern_that_says_nothing_is_refused(self, pattern: str) -> None:
        with pytest.raises(ConfigurationError):
            SubjectPattern(pattern)


class TestFederationFile:
    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("", "at least one"),
            ("member = []", "at least one"),
            ("[[member]]", "a name"),
            ('[[member]]\nname = "A"\nca = "a.pem"', "ca and subject"),
            ('[[member]]\nname = "A"\nsubject = "*"', "ca and subject"),
            ('[[member]]\nname = "A"\nca = "a.pem"\nsubject = "*"\nrse = ["X"]', "did you mean rses?"),
            ('[[members]]\nname = "A"', "did you mean member?"),
            ('[[member]]\nname = "A"\nca = "a.pem"\nsubject = "*"\nrses = [1]', "list of texts"),
            ('[[member]]\nname = "A"\nca = "a.pem"\nsubject = "*"\noutside = "yes"', "true or false"),
            ('[[member]]\nname = "A"\nca = "a.pem"\nsubject = "*"\n' * 2, "every member once"),
            ("[[member", "TOML"),
        ],
    )
    def test_a_mistake_is_named(self, text: str, told: str) -> None:
        with pytest.raises(ConfigurationError) as error:
            Trust.from_federation(text, FILES.__getitem__)
        assert told in str(error.value)

    def test_a_file_that_cannot_be_read_is_named(self) -> None:
        def read(location: str) -> bytes:
            raise FileNotFoundError(2, "No such file or directory", location)

        with pytest.raises(ConfigurationError, match=r"a\.pem"):
            Trust.from_federation(FEDERATION, read)

    def test_certificates_that_cannot_be_read_are_named(self) -> None:
        with pytest.raises(ConfigurationError, match=r"a\.pem"):
            Trust.from_federation(FEDERATION, lambda _location: b"junk")
        with pytest.raises(ConfigurationError, match="anchors"):
            Trust.from_anchors([b"junk"])


class TestCertificates:
    def test_junk_is_malformed(self) -> None:
        for junk in (b"", b"junk", ROOT_A.der + b"x", ROOT_A.der[:-1]):
            with pytest.raises(Malformed):
                load(junk)
        with pytest.raises(Malformed):
            load_pem(b"", "x")

    def test_a_signer_may_be_trusted_by_its_own_certificate(self) -> None:
        alone = ROOT_A.issue()
        assert kinds(made(alone.signer), Trust.from_anchors([alone.pem])) == set()
        assert kinds(made(SITE_A), Trust.from_anchors([alone.pem])) == {faults.UnknownIssuer}

    def test_an_anchor_may_be_an_intermediate(self) -> None:
        issuing = ROOT_A.below()
        assert kinds(made(issuing.issue().signer), Trust.from_anchors([issuing.pem])) == set()

    def test_two_intermediates_lead_to_the_root(self) -> None:
        assert kinds(made(ROOT_A.below("1").below("2").issue().signer), Trust.from_anchors([ROOT_A.pem])) == set()

    def test_a_signer_certifies_nobody(self) -> None:
        signer = ROOT_A.issue("not a CA")
        below = Authority(signer.key, signer.certificate, (signer.certificate,)).issue("below").signer
        assert kinds(made(below), Trust.from_anchors([ROOT_A.pem])) == {faults.UnknownIssuer}

    def test_a_path_longer_than_the_authority_allows_is_none(self) -> None:
        short = ROOT_A.below(path_length=0)
        assert kinds(made(short.issue().signer), Trust.from_anchors([ROOT_A.pem])) == set()
        assert kinds(made(short.below("2").issue().signer), Trust.from_anchors([ROOT_A.pem])) == {faults.UnknownIssuer}

    def test_an_authority_not_meant_to_certify_is_none(self) -> None:
        mute = ROOT_A.below(key_usage=usage(crl_sign=True))
        assert kinds(made(mute.issue().signer), Trust.from_anchors([ROOT_A.pem])) == {faults.UnknownIssuer}

    def test_a_critical_extension_nobody_knows_is_refused(self) -> None:
        odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
        signer = ROOT_A.issue(extensions=((odd, True),)).signer
        assert kinds(made(signer), Trust.from_anchors([ROOT_A.pem])) == {faults.UnknownIssuer}

    def test_the_root_may_stand_in_the_chain(self) -> None:
        signer = ROOT_A.below().issue()
        signer.chain = (*signer.chain, ROOT_A.certificate)
        assert kinds(made(signer.signer), Trust.from_anchors([ROOT_A.pem])) == set()
        signer.chain = (*signer.chain, ROOT_B.certificate)
        assert kinds(made(signer.signer), Trust.from_anchors([ROOT_A.pem])) == {faults.ChainBroken}


class TestExpiry:
    OLD = ROOT_A.issue(uri="https://site-a.example/old", since=NOW - 50 * DAY, until=NOW - 10 * DAY)

    def test_an_expired_certificate_is_expired_not_tampered(self) -> None:
        trace = made(self.OLD.signer, time=format_time(NOW - 20 * DAY))
        assert kinds(trace) == {faults.Expired}
        assert kinds(trace, at=NOW - 15 * DAY) == set()
        assert kinds(trace) == {faults.Expired}

    def test_a_claimed_time_prolongs_nothing(self) -> None:
        assert kinds(made(self.OLD.signer, time=format_time(NOW - 11 * DAY))) == {faults.Expired}

    def test_registration_in_the_own_store_does(self) -> None:
        trace = made(self.OLD.signer, time=format_time(NOW - 20 * DAY))
        accepted = check_trace(trace, TRUST, NOW, registered_at=NOW - 15 * DAY)
        assert accepted.registered
        assert accepted.judged_at == NOW - 15 * DAY
        with pytest.raises(Refused):
            check_trace(trace, TRUST, NOW, registered_at=NOW - 5 * DAY)

    def test_an_expired_authority_expires_its_signers(self) -> None:
        root = Authority.root(since=NOW - 90 * DAY, until=NOW - 10 * DAY)
        trust = Trust.from_anchors([root.pem])
        trace = made(root.issue().signer, time=format_time(NOW - 20 * DAY))
        assert kinds(trace, trust) == {faults.Expired}
        assert kinds(trace, trust, NOW - 15 * DAY) == set()
        assert kinds(trace, trust) == {faults.Expired}

    def test_an_authority_renewed_with_the_same_key_goes_on(self) -> None:
        first = Authority.root(since=NOW - 90 * DAY, until=NOW - 10 * DAY)
        own = first.certificate.subject
        second = _certificate(own, first.key, own, first.key, ca=True, since=NOW - 12 * DAY)
        signer = first.issue().signer
        pem = Authority(first.key, second).pem
        trust = Trust.from_anchors([first.pem, pem])
        trace = made(signer, time=format_time(NOW - 20 * DAY))
        assert kinds(trace, trust, NOW - 15 * DAY) == set()
        assert kinds(trace, trust, NOW) == set()

    def test_a_time_to_come_is_a_fault_beyond_five_minutes(self) -> None:
        trace = made(SITE_A, time=format_time(NOW))
        assert kinds(trace, at=NOW - DAY / 24 / 12) == set()
        assert kinds(trace, at=NOW - DAY / 24 / 11) == {faults.TimeInFuture}


def test_all_faults_are_told_at_once() -> None:
    old = ROOT_A.issue(uri="https://site-a.example/old", since=NOW - 50 * DAY, until=NOW - 10 * DAY).signer
    trace = made(old, time=format_time(NOW - 20 * DAY), rse="SITE-B_DISK")
    damaged = Trace(
        statement=trace.statement,
        message=trace.message,
        signature=trace.signature[::-1],
        certificate=trace.certificate,
        algorithm="RSA-SHA256",
    )
    assert kinds(damaged) == {faults.BadSignature, faults.WrongAlgorithm, faults.Expired, faults.OutsideRights}
