"""Certificate revocation lists: who withdrew which certificate, since when, and why.

A list counts only with its issuer's signature. A list that should answer and cannot (out of date,
broken, partial) gives "unusable", never "not revoked". Permanent entries count from every list we
hold; a hold counts from the newest alone, since being dropped from it means removal.
No I/O; safe to call concurrently.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.x509 import ReasonFlags

from rucio_trace.certificates import UNREADABLE, Certificate
from rucio_trace.errors import ConfigurationError

__all__ = ["Revocation", "Revocations", "Unusable"]

_CLOCK_SKEW = timedelta(minutes=5)

# Reasons under which the key stayed in honest hands: what it signed before that day stands.
# All others, and none, are read as a key in strange hands (docs/format.md, section 7).
_KEY_STAYED_SAFE = frozenset(
    {ReasonFlags.superseded, ReasonFlags.cessation_of_operation, ReasonFlags.affiliation_changed}
)
_REMOVABLE = frozenset({ReasonFlags.certificate_hold, ReasonFlags.remove_from_crl})


@dataclass(frozen=True, slots=True)
class Revocation:
    """A withdrawn certificate. `since` is the earlier of revocation and invalidity."""

    since: datetime
    reason: str
    key_stayed_safe: bool


@dataclass(frozen=True, slots=True)
class Unusable:
    """No list can say whether the certificate was withdrawn."""

    expected: str
    found: str


@dataclass(slots=True)
class _List:
    crl: x509.CertificateRevocationList
    last_update: datetime
    next_update: datetime | None
    whole: bool
    signed_by: dict[str, bool] = field(default_factory=dict)

    def is_signed_by(self, issuer: Certificate) -> bool:
        """Kept by the issuer's fingerprint: a list of a large authority is megabytes."""
        known = self.signed_by.get(issuer.fingerprint)
        if known is None:
            known = self.signed_by[issuer.fingerprint] = _signed_by(self.crl, issuer)
        return known


class Revocations:
    """All lists the verifier holds, PEM (one or more) or DER each."""

    def __init__(self, files: Iterable[bytes]) -> None:
        self._by_issuer: dict[bytes, list[_List]] = {}
        for data in files:
            for crl in _load(data):
                self._by_issuer.setdefault(crl.issuer.public_bytes(), []).append(_read(crl))

    def __bool__(self) -> bool:
        return bool(self._by_issuer)

    def check(
        self, certificate: Certificate, issuer: Certificate, now: datetime, *, required: bool, allow_stale: bool
    ) -> Revocation | Unusable | None:
        """Whether *issuer* withdrew *certificate*; None means it did not.

        Without *required*, a certificate whose issuer has no list here at all is taken as not
        withdrawn. With *allow_stale*, lists past their next update still answer.
        """
        candidates = self._by_issuer.get(certificate.issuer_der, [])
        if not candidates:
            return Unusable(f"a revocation list of {issuer.subject}", "none") if required else None
        signed = [item for item in candidates if item.whole and item.is_signed_by(issuer)]
        lists = sorted((i for i in signed if i.last_update <= now + _CLOCK_SKEW), key=lambda i: i.last_update)
        if not lists:
            return Unusable(f"a whole, signed revocation list of {issuer.subject}", "none")
        if revocation := _find(certificate.x509.serial_number, lists):
            return revocation
        newest = lists[-1]
        if not allow_stale and (newest.next_update is None or newest.next_update < now):
            until = newest.next_update.isoformat() if newest.next_update else "a time it does not tell"
            return Unusable(f"a revocation list of {issuer.subject} valid at {now.isoformat()}", f"one until {until}")
        return None


_BLOCK = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----\s*", re.DOTALL)


def _load(data: bytes) -> list[x509.CertificateRevocationList]:
    try:
        if b"-----BEGIN" not in data:
            return [x509.load_der_x509_crl(data)]
        blocks = _BLOCK.findall(data)
        if not blocks:
            raise ValueError("no X509 CRL block")
        return [x509.load_pem_x509_crl(block) for block in blocks]
    except UNREADABLE as error:
        raise ConfigurationError("revocation list", expected="CRLs in PEM or DER", found=str(error)) from None


def _read(crl: x509.CertificateRevocationList) -> _List:
    try:
        whole = not any(e.critical for e in crl.extensions) and not any(
            isinstance(e.value, x509.DeltaCRLIndicator | x509.IssuingDistributionPoint) for e in crl.extensions
        )
    except UNREADABLE:
        whole = False  # an extension we cannot read may limit what the list covers
    return _List(crl, crl.last_update_utc, crl.next_update_utc, whole)


def _signed_by(crl: x509.CertificateRevocationList, issuer: Certificate) -> bool:
    try:
        usage = issuer.x509.extensions.get_extension_for_class(x509.KeyUsage).value
        if not usage.crl_sign:
            return False
    except x509.ExtensionNotFound:
        pass  # a CA without keyUsage may sign everything (RFC 5280, 4.2.1.3)
    try:
        return crl.is_signature_valid(issuer.x509.public_key())  # type: ignore[arg-type]
    except UNREADABLE:
        return False


def _find(serial: int, lists: list[_List]) -> Revocation | None:
    """The earliest entry for *serial*; *lists* oldest first."""
    found: list[Revocation] = []
    for item in lists:
        entry = item.crl.get_revoked_certificate_by_serial_number(serial)
        if entry is None:
            continue
        reason, since = _reason(entry), _since(entry)
        if reason is ReasonFlags.remove_from_crl or (reason in _REMOVABLE and item is not lists[-1]):
            continue
        found.append(Revocation(since, reason.value if reason else "no reason given", reason in _KEY_STAYED_SAFE))
    return min(found, key=lambda r: (r.key_stayed_safe, r.since), default=None)


def _reason(entry: x509.RevokedCertificate) -> ReasonFlags | None:
    try:
        return entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except (x509.ExtensionNotFound, *UNREADABLE):
        return None


def _since(entry: x509.RevokedCertificate) -> datetime:
    try:
        invalid = entry.extensions.get_extension_for_class(x509.InvalidityDate).value.invalidity_date
    except (x509.ExtensionNotFound, *UNREADABLE):
        return entry.revocation_date_utc
    return min(entry.revocation_date_utc, invalid.replace(tzinfo=UTC))
