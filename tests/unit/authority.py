"""A certificate authority for tests: every certificate and list a test asks for, also the wrong ones."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from rucio_trace.envelope import Signer

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def name(common: str, organisation: str = "Test Federation") -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation), x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )


def usage(**given: bool) -> x509.KeyUsage:
    flags = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign "
        "crl_sign encipher_only decipher_only"
    ).split()
    return x509.KeyUsage(**{flag: given.get(flag, False) for flag in flags})


def pem_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@dataclass
class Issued:
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def chain_pem(self) -> bytes:
        return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in (self.certificate, *self.chain))

    @property
    def signer(self) -> Signer:
        return Signer.load(pem_of(self.key), self.chain_pem)


@dataclass
class Authority(Issued):
    """A CA. `below` makes an intermediate, `signer_for` a signer's certificate, `crl` a revocation list."""

    serial: int = field(default=1)

    @classmethod
    def root(cls, common: str = "Test Root", **options: object) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(name(common), key, name(common), key, ca=True, **options)  # type: ignore[arg-type]
        return cls(key, certificate)

    def below(self, common: str = "Test Issuing CA", **options: object) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(name(common), key, self.certificate.subject, self.key, ca=True, **options)  # type: ignore[arg-type]
        return Authority(key, certificate, (*((certificate,)), *self.chain))

    def issue(self, common: str = "recorder", **options: object) -> Issued:
        key = options.pop("key", None) or ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(
            options.pop("subject", None) or name(common),  # type: ignore[arg-type]
            key,  # type: ignore[arg-type]
            self.certificate.subject,
            self.key,
            **options,  # type: ignore[arg-type]
        )
        return Issued(key, certificate, self.chain)  # type: ignore[arg-type]

    def crl(
        self,
        *revoked: tuple[x509.Certificate, datetime, x509.ReasonFlags | None],
        at: datetime = NOW - DAY,
        days: float = 30,
        extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
        invalid_since: datetime | None = None,
    ) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(at)
            .next_update(at + days * DAY)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        for certificate, moment, reason in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(moment)
            if reason is not None:
                entry = entry.add_extension(x509.CRLReason(reason), critical=False)
            if invalid_since is not None:
                entry = entry.add_extension(x509.InvalidityDate(invalid_since.replace(tzinfo=None)), critical=False)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    *,
    ca: bool = False,
    uri: str | None = None,
    since: datetime = NOW - 100 * DAY,
    until: datetime = NOW + 100 * DAY,
    key_usage: x509.KeyUsage | None | bool = True,
    constraints: bool = True,
    path_length: int | None = None,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if constraints:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length if ca else None), critical=True)
    if key_usage is True:
        key_usage = usage(key_cert_sign=True, crl_sign=True) if ca else usage(digital_signature=True)
    if isinstance(key_usage, x509.KeyUsage):
        builder = builder.add_extension(key_usage, critical=True)
    if uri:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, hashes.SHA256())
