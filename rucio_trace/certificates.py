"""X.509 certificates as far as traces need them: loaded once, read completely, or refused.

`load` is cached by the certificate's bytes, so that thousands of traces of one signer cost one
parse. Whether a certificate is trusted is decided in `identity`. No I/O; safe to call concurrently.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from rucio_trace.errors import Malformed

__all__ = ["ECDSA", "RSA", "Certificate", "SigningKey", "TraceKey", "key_algorithm", "load", "load_pem"]

ECDSA = "ECDSA-SHA256"
RSA = "RSA-SHA256"

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192  # one check of 16,384 bits costs as much as fifteen of these
_CACHED_CERTIFICATES = 4096  # a few KiB each; a federation has hundreds
_CACHED_BYTES = 16 * 1024  # of one: what strangers send can be of any size

_REMEMBERED_SIGNATURES = 100_000  # of about 100 bytes: what a service is asked about again and again

_UNYIELDING = 2047
"""Bytes at once for which hashlib lets no other thread run: to get one's turn again takes longer than the digest."""

TraceKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

# What `cryptography` raises for bytes that are no certificate, or an odd one.
UNREADABLE = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate. `key` is None when its kind or size is not accepted for traces."""

    der: bytes
    x509: x509.Certificate
    key: TraceKey | None
    algorithm: str | None
    fingerprint: str
    subject: str
    issuer_der: bytes
    uris: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    is_ca: bool
    may_sign: bool

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether *signature* over *data* was made with this certificate's key.

        What was found good once is remembered: it stays so, whatever becomes of the certificate.
        """
        hashing = hashlib.sha256(b"%s %d " % (self.fingerprint.encode(), len(signature)) + signature)
        for start in range(0, len(data), _UNYIELDING):
            hashing.update(data[start : start + _UNYIELDING])
        question = hashing.digest()
        if question in _GOOD:
            return True
        if not self._fits(signature, data):
            return False
        if len(_GOOD) >= _REMEMBERED_SIGNATURES:
            _GOOD.clear()
        _GOOD[question] = None
        return True

    def _fits(self, signature: bytes, data: bytes) -> bool:
        try:
            if isinstance(self.key, ec.EllipticCurvePublicKey):
                self.key.verify(signature, data, _ECDSA)
            elif isinstance(self.key, rsa.RSAPublicKey):
                self.key.verify(signature, data, _PKCS1, _SHA256)
            else:
                return False
        except (InvalidSignature, ValueError):
            return False
        return True

    def issued(self, other: "Certificate") -> bool:
        """Whether *other* names this certificate as its issuer and bears its signature."""
        try:
            other.x509.verify_directly_issued_by(self.x509)
        except (InvalidSignature, *UNREADABLE):
            return False
        return True


_GOOD: dict[bytes, None] = {}
_SHA256 = hashes.SHA256()
_ECDSA = ec.ECDSA(_SHA256)
_PKCS1 = padding.PKCS1v15()


def key_algorithm(key: object) -> str | None:
    """The one signature algorithm a key is used with, None when the key is not accepted."""
    if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey):
        return ECDSA if isinstance(key.curve, ec.SECP256R1) else None
    if isinstance(key, rsa.RSAPublicKey | rsa.RSAPrivateKey):
        return RSA if MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS else None
    return None


def load(der: bytes) -> Certificate:
    """Read a certificate and everything in it that we ever look at.

    Raises:
        Malformed: not a certificate, or one with unreadable parts.
    """
    return _remembered(der) if len(der) <= _CACHED_BYTES else _load(der)


def _load(der: bytes) -> Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        # A signature is whole bytes; the count of its unused bits is under no signature and must not be another.
        if certificate.public_bytes(Encoding.DER) != der or der[-len(certificate.signature) - 1] != 0:
            raise ValueError("not in DER")
        return _read(der, certificate)
    except UNREADABLE as error:
        raise Malformed("certificate", expected="an X.509 certificate", found=str(error)) from None


_remembered = lru_cache(maxsize=_CACHED_CERTIFICATES)(_load)


def load_pem(pem: bytes, subject: str) -> list[Certificate]:
    """Read all certificates of a PEM text; *subject* names it in errors."""
    try:
        ders = [c.public_bytes(Encoding.DER) for c in x509.load_pem_x509_certificates(pem)]
    except UNREADABLE as error:
        raise Malformed(subject, expected="certificates in PEM", found=str(error)) from None
    return [load(der) for der in ders]


def _read(der: bytes, certificate: x509.Certificate) -> Certificate:
    usage = names = constraints = None
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.KeyUsage):
            usage = extension.value
        elif isinstance(extension.value, x509.SubjectAlternativeName):
            names = extension.value
        elif isinstance(extension.value, x509.BasicConstraints):
            constraints = extension.value
    try:
        key: object = certificate.public_key()
    except UNREADABLE:
        key = None  # another kind of key: not ours, but the certificate may stand in a chain
    algorithm = key_algorithm(key)
    return Certificate(
        der=der,
        x509=certificate,
        key=key if algorithm and isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey) else None,
        algorithm=algorithm,
        fingerprint=hashlib.sha256(der).hexdigest(),
        subject=certificate.subject.rfc4514_string(),
        issuer_der=certificate.issuer.public_bytes(),
        uris=tuple(names.get_values_for_type(x509.UniformResourceIdentifier)) if names else (),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        is_ca=bool(constraints and constraints.ca) or bool(usage and usage.key_cert_sign),
        may_sign=bool(usage and usage.digital_signature),
    )
