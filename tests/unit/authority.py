"""A certificate authority for tests: every certificate and list a test asks for, also the wrong ones."""

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from rucio_trace.envelope import Signer, Trace, sign
from rucio_trace.trace import (
    Event,
    Found,
    ProductKey,
    Statement,
    base_name,
    format_time,
    new_event_id,
    new_salt,
)
from rucio_trace.verify import Candidate

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def name(common: str, organisation: str = "Test Federation") -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation), x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )


def usage(**given: bool) -> x509.KeyUsage:
    flags = [
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ]
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

    @classmethod
    def root(cls, common: str = "Test Root", **options: object) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(name(common), key, name(common), key, ca=True, **options)  # type: ignore[arg-type]
        return cls(key, certificate)

    def below(self, common: str = "Test Issuing CA", **options: object) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(name(common), key, self.certificate.subject, self.key, ca=True, **options)  # type: ignore[arg-type]
        return Authority(key, certificate, (certificate, *self.chain))

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
    key_usage: x509.KeyUsage | bool | None = True,
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
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False
        )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, hashes.SHA256())


PRODUCT = ProductKey("example", "def", "s2", "S2A_T33UVP.SAFE.zip", format_time(NOW - 10 * DAY))
HASH = "0c4a6ebbd3bf1e9c5aa2def2a03ad67be47a4b2e04f263378cd2d69d5de3cdb4"
OTHER = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
RSE = "SITE-A_DISK"


def statement(signer: Signer, event: Event = Event.CREATE, /, **changes: object) -> Statement:
    """A statement that is right in every respect but *changes*. `product=None` speaks outside Rucio."""
    product = changes.pop("product", PRODUCT)
    fields: dict[str, object] = {
        "name": base_name(product.name) if product else "S2A_T33UVP.SAFE.zip",
        "size": 735683295,
        "hash": HASH,
        "hash_algorithm": "BLAKE3",
        "event": event,
        "event_id": new_event_id(),
        "site": "SITE-A",
        "signer": signer.fingerprint,
        "time": format_time(NOW - DAY),
        "salt": new_salt(),
    }
    if product:
        fields |= product.fields()
        if event not in (Event.OBSOLETE, Event.REVOKE):
            fields |= {"rse": RSE, "method": "read", "observed": format_time(NOW - DAY)}
    if event is Event.CORRUPT:
        fields["found"] = Found(735683295, {"BLAKE3": OTHER})
    return Statement(**{**fields, **changes})  # type: ignore[arg-type]


def made(signer: Signer, event: Event = Event.CREATE, /, **changes: object) -> Trace:
    return sign(statement(signer, event, **changes), signer)


def declared(signer: Signer, **changes: object) -> Trace:
    """A producer's CREATE: of no replica."""
    return made(signer, Event.CREATE, **{"rse": None, "method": None, "observed": None, **changes})


def file(hash_: str = HASH, *, name: str = "S2A_T33UVP.SAFE.zip", size: int = 735683295, **more: object) -> Candidate:
    return Candidate(**{"file": f"/data/{name}", "base_name": name, "size": size, "hashes": {"BLAKE3": hash_}, **more})  # type: ignore[arg-type]


def signed_raw(text: str, signer: Signer, **outer: object) -> dict[str, Any]:
    """Any text, properly signed, in an envelope that claims to repeat it: what a hostile signer can make."""
    message = json.loads(text) if text.startswith("{") else {}
    value: dict[str, Any] = {
        "event": message.get("event", "CREATE"),
        "hash_algorithm": message.get("hash_algorithm", "BLAKE3"),
        "product": {key: message.get(key, default) for key, default in (("name", "x"), ("size", 0), ("hash", HASH))},
        "signature": {
            "algorithm": signer.algorithm,
            "certificate": base64.b64encode(signer.certificate).decode(),
            "message": text,
            "signature": base64.b64encode(signer._sign(text.encode("utf-8", "surrogatepass"))).decode(),
            "chain": [base64.b64encode(der).decode() for der in signer.chain],
        },
    }
    for key in ("contents", "inputs"):
        if key in message:
            value["product"][key] = message[key]
    return {**value, **outer}
