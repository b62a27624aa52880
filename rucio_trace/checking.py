"""One trace, held against everything we know: accepted, or refused with all its faults.

The order of the questions: is the text what was signed; by the certificate it names; does a path
lead from that certificate to an anchor of a member whose certificate it is; was it valid, and not
withdrawn, at the time of judgement; may that member say this (docs/format.md, sections 6 and 7).
Pure: time is an argument. Safe to call concurrently.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from rucio_trace import certificates, faults
from rucio_trace.certificates import Certificate
from rucio_trace.chains import Path
from rucio_trace.envelope import Trace
from rucio_trace.errors import Malformed, Refuted
from rucio_trace.faults import Altered, Expired, Fault, Uncertain, Untrusted
from rucio_trace.identity import Member, Trust
from rucio_trace.revocation import Revocation, Unusable
from rucio_trace.statement import SCHEMA, parse_time

__all__ = ["CLOCK_SKEW", "Accepted", "Refused", "check_trace"]

CLOCK_SKEW = timedelta(minutes=5)  # what unsynchronised but honest clocks differ by


@dataclass(frozen=True, slots=True)
class Accepted:
    """A trace that counts: who said it, and the time by which it was judged.

    `judged_at` is the registration in the verifier's own store when `registered`, else now.
    """

    trace: Trace
    member: str
    subject: str
    judged_at: datetime
    registered: bool


class Refused(Refuted):
    """The trace does not count; `faults` are all the reasons, `member` who would have said it, if that is known."""

    def __init__(self, trace: Trace, found: tuple[Fault, ...], member: str = "") -> None:
        self.trace, self.faults, self.member = trace, found, member
        first = found[0]
        super().__init__(f"trace {trace.id}: {first.what}", expected=first.expected, found=first.found)

    @property
    def family(self) -> type[Fault]:
        """The gravest family of faults: Altered, Untrusted, Expired or Uncertain."""
        for family in (Altered, Untrusted, Expired, Uncertain):
            if any(isinstance(fault, family) for fault in self.faults):
                return family
        return Fault


def check_trace(
    trace: Trace,
    trust: Trust,
    at: datetime,
    *,
    registered_at: datetime | None = None,
    allow_stale_crl: bool = False,
    scope: str | None = None,
) -> Accepted:
    """Accept *trace* at the time *at*, or raise.

    *registered_at* is the moment the verifier's own store took the trace in, and nothing else: a
    certificate that was good then stays good for it. *scope* is that of a product in Rucio for which a
    trace of a file in no Rucio is to speak: its signer then needs the right there, instead of `outside`.

    Raises:
        Refused: with every fault found.
    """
    judged_at = registered_at or at
    found = list(trace.faults)
    try:
        signer, chain = _certificates(trace)
    except Malformed as error:
        found.append(faults.CertificateUnreadable(error.subject, error.expected, error.found))
        raise _refused(trace, found) from None
    if signer is None:
        if not found:
            found.append(faults.Unsigned("signature", "a signed text, a signature and a certificate", "no signature"))
        raise _refused(trace, found)
    found += _signature_faults(trace, signer)
    found += _signer_faults(signer)
    found += _time_faults(trace, signer, judged_at)
    member, more = _membership(trace, trust, signer, chain, judged_at, scope)
    found += more
    if member is not None:
        when = _When(at, judged_at, registered_at is not None, allow_stale_crl)
        found += _revocation_faults(trace, trust, member[0], member[1], when)
        if not found:
            return Accepted(trace, member[0].name, signer.subject, judged_at, registered_at is not None)
    raise _refused(trace, found, member[0].name if member else "")


def _refused(trace: Trace, found: list[Fault], member: str = "") -> Refused:
    id_ = trace.id if trace.message else trace.claimed_id
    return Refused(trace, tuple(replace(fault, trace=id_) for fault in found), member)


def _certificates(trace: Trace) -> tuple[Certificate | None, tuple[Certificate, ...]]:
    if not (trace.message and trace.signature and trace.certificate):
        return None, ()
    return certificates.load(trace.certificate), tuple(certificates.load(der) for der in trace.chain)


def _signature_faults(trace: Trace, signer: Certificate) -> list[Fault]:
    found: list[Fault] = []
    s = trace.statement
    if signer.key is None:
        found.append(faults.WeakKey("key", "ECDSA P-256 or RSA of 2048 to 8192 bits", "another key"))
    else:
        if trace.algorithm != signer.algorithm:
            found.append(faults.WrongAlgorithm("algorithm", signer.algorithm or "", trace.algorithm))
        try:
            genuine = signer.verifies(trace.signature, trace.message.encode("utf-8"))
        except UnicodeError:
            genuine = False
        if not genuine:
            found.append(faults.BadSignature("signature", f"one by {signer.subject}", "another one"))
    if s.schema == SCHEMA and s.signer != signer.fingerprint:
        found.append(faults.WrongSigner("signer", signer.fingerprint, s.signer or "none"))
    if s.schema is not None and s.schema != SCHEMA:
        found.append(faults.NewerSchema("schema", SCHEMA, f"{s.schema}, made by a newer version"))
    return found


def _signer_faults(signer: Certificate) -> list[Fault]:
    if signer.is_ca:
        return [faults.CaSigned("certificate", "a signer's", f"the authority's, {signer.subject}")]
    if not signer.may_sign:
        return [faults.NoDigitalSignature("certificate", "keyUsage digitalSignature", signer.subject)]
    return []


def _time_faults(trace: Trace, signer: Certificate, judged_at: datetime) -> list[Fault]:
    if trace.statement.time is None:
        return []
    time = parse_time(trace.statement.time)
    if time > judged_at + CLOCK_SKEW:
        return [faults.TimeInFuture("time", f"at most {(judged_at + CLOCK_SKEW).isoformat()}", trace.statement.time)]
    if time < signer.not_before:
        expected = f"at least {signer.not_before.isoformat()}"
        return [faults.TimeBeforeCertificate("time", expected, trace.statement.time)]
    return []


def _membership(
    trace: Trace, trust: Trust, signer: Certificate, chain: tuple[Certificate, ...], at: datetime, scope: str | None
) -> tuple[tuple[Member, Path] | None, list[Fault]]:
    """The member whose word this is, by certificate and by right; else the nearest miss, told in faults."""
    vouching = trust.vouching(signer, chain, at)
    owners = [(member, path) for member, path in vouching if member.owns(signer)]
    if not vouching:
        stranger = f"{_described(signer)}, issued by {signer.x509.issuer.rfc4514_string()}"
        return None, [faults.UnknownIssuer("certificate", "a path to an anchor", stranger)]
    if not owners:
        patterns = ", ".join(subject.pattern for member, _ in vouching for subject in member.subjects)
        return None, [faults.OutsidePattern("subject", patterns, _described(signer))]
    misses: list[tuple[tuple[Member, Path], list[Fault]]] = []
    for member, path in owners:
        found = _path_faults(member, path, signer, chain, at)
        if trace.statement.schema in (None, SCHEMA) and (right := member.missing_right(trace.statement, scope)):
            found.append(faults.OutsideRights(member.name, right, "no such right"))
        if not found:
            return (member, path), []
        misses.append(((member, path), found))
    return min(misses, key=lambda miss: len(miss[1]))


def _path_faults(
    member: Member, path: Path, signer: Certificate, chain: tuple[Certificate, ...], at: datetime
) -> list[Fault]:
    found: list[Fault] = []
    if at > path.not_after:
        until = f"valid until {path.not_after.isoformat()}"
        found.append(faults.Expired("certificate", f"valid at {at.isoformat()}", until))
    elif at < path.not_before:
        since = f"valid from {path.not_before.isoformat()}"
        found.append(faults.NotYetValid("certificate", f"valid at {at.isoformat()}", since))
    if broken := member.anchors.breaks(signer, chain):
        found.append(faults.ChainBroken("chain", "each certificate issued by the next", broken.subject))
    return found


def _described(signer: Certificate) -> str:
    return f"{signer.subject} {' '.join(f'URI:{uri}' for uri in signer.uris)}".strip()


@dataclass(frozen=True, slots=True)
class _When:
    now: datetime
    judged_at: datetime
    registered: bool
    allow_stale_crl: bool


def _revocation_faults(trace: Trace, trust: Trust, member: Member, path: Path, when: _When) -> list[Fault]:
    """Ask the lists about every certificate of the path but the anchor."""
    found: list[Fault] = []
    for number, (certificate, issuer) in enumerate(zip(path.certificates, path.certificates[1:], strict=False)):
        answer = trust.revocations.check(
            certificate,
            issuer,
            when.now,
            required=member.needs_crl and number == 0,
            allow_stale=when.allow_stale_crl,
        )
        if isinstance(answer, Unusable):
            found.append(faults.CrlUnusable("revocation list", answer.expected, answer.found))
        elif isinstance(answer, Revocation) and not _survives(trace, answer, when):
            withdrawn = f"revoked since {answer.since.isoformat()}: {answer.reason}"
            found.append(faults.CertificateRevoked(certificate.subject, "a certificate in force", withdrawn))
    return found


def _survives(trace: Trace, revocation: Revocation, when: _When) -> bool:
    """A claimed time is believed only from a key that stayed in honest hands."""
    if when.registered and when.judged_at < revocation.since:
        return True
    time = trace.statement.time
    return revocation.key_stayed_safe and time is not None and parse_time(time) < revocation.since
