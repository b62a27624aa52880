"""Signing keys: make one, ask an authority to certify it, tell what one has.

A key signs requests for its own certificate and, through `envelope.Signer`, statements; nothing
else. Bytes in, bytes out: where a key is kept, and with which permissions, is the caller's matter.
"""

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rucio_trace.certificates import UNREADABLE, SigningKey, key_algorithm, load_pem
from rucio_trace.errors import ConfigurationError, Malformed

__all__ = ["SignerDescription", "describe", "generate_key", "load_key", "request_certificate"]


def generate_key(password: bytes | None = None) -> bytes:
    """A new P-256 key as PKCS #8 in PEM, encrypted if *password* is given."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption(),
    )


def load_key(pem: bytes, password: bytes | None = None) -> SigningKey:
    """Read a private key that may sign traces.

    Raises:
        ConfigurationError: unreadable, or of a kind or size no verifier accepts.
    """
    try:
        key = serialization.load_pem_private_key(pem, password)
    except UNREADABLE as error:
        raise ConfigurationError("signing key", expected="a private key in PEM", found=str(error)) from None
    if key_algorithm(key) is None:
        raise ConfigurationError("signing key", expected="ECDSA P-256 or RSA of 2048 to 8192 bits", found="another")
    return key  # type: ignore[return-value]


def request_certificate(
    key_pem: bytes, common_name: str, uri: str | None = None, password: bytes | None = None
) -> bytes:
    """A certificate signing request in PEM, with the usage a signer needs.

    *uri* becomes the subject alternative name by which a federation file recognises the signer.

    Raises:
        ConfigurationError: the key is unreadable, or a name cannot stand in a certificate.
    """
    key = load_key(key_pem, password)
    try:
        builder = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_SIGNS_ONLY, critical=True)
        )
        if uri is not None:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
            builder = builder.add_extension(names, critical=False)
    except ValueError as error:
        raise ConfigurationError("certificate request", expected="an ASCII URI and a name", found=str(error)) from None
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


_SIGNS_ONLY = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class SignerDescription:
    """What verifiers see of a signer. `problems` are the reasons, if any, why they would refuse it."""

    subject: str
    issuer: str
    uris: tuple[str, ...]
    fingerprint: str
    algorithm: str | None
    not_before: datetime
    not_after: datetime
    intermediates: tuple[str, ...]
    problems: tuple[str, ...]


def describe(
    chain_pem: bytes, now: datetime, key_pem: bytes | None = None, password: bytes | None = None
) -> SignerDescription:
    """Describe a signer's certificate (the first of *chain_pem*), and whether *key_pem* is its key.

    Raises:
        ConfigurationError: the certificates or the key cannot be read.
    """
    try:
        signer, *chain = load_pem(chain_pem, "signer's certificate")
    except Malformed as error:
        raise ConfigurationError(error.subject, expected=error.expected, found=error.found) from None
    problems = []
    if signer.algorithm is None:
        problems.append("the key is neither ECDSA P-256 nor RSA of 2048 to 8192 bits")
    if signer.is_ca:
        problems.append("it is an authority's certificate, which never signs traces")
    elif not signer.may_sign:
        problems.append("it lacks the key usage digitalSignature")
    if now < signer.not_before:
        problems.append(f"it is not valid before {signer.not_before.isoformat()}")
    if now > signer.not_after:
        problems.append(f"it expired at {signer.not_after.isoformat()}")
    if key_pem is not None and load_key(key_pem, password).public_key() != signer.key:
        problems.append("the key is another one")
    return SignerDescription(
        subject=signer.subject,
        issuer=signer.x509.issuer.rfc4514_string(),
        uris=signer.uris,
        fingerprint=signer.fingerprint,
        algorithm=signer.algorithm,
        not_before=signer.not_before,
        not_after=signer.not_after,
        intermediates=tuple(c.subject for c in chain),
        problems=tuple(problems),
    )
