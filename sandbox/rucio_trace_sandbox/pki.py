"""A throw-away certification authority and the federation file of its members.

Its keys are made for one sandbox and lie beside it in clear; nobody else should
ever trust them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rucio_trace.envelope import Signer
from rucio_trace.identity import Trust

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Member", "SandboxAuthority"]

_ORGANISATION = "rucio-trace sandbox"
_LIFETIME = timedelta(days=30)
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True, kw_only=True)
class Member:
    """One who may sign: files of its key and certificate, and what the federation lets it say."""

    name: str
    uri: str
    key: Path
    certificate: Path
    rses: Sequence[str] = ("*",)
    create: Sequence[str] = ("*",)
    obsolete: Sequence[str] = ()
    revoke: Sequence[str] = ()
    outside: bool = False

    @property
    def signer(self) -> Signer:
        return Signer.load(self.key.read_bytes(), self.certificate.read_bytes())


@dataclass
class SandboxAuthority:
    """A CA whose certificate, revocation list and federation file lie in `folder`, renewed at every change."""

    folder: Path
    members: list[Member] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("sandbox CA")
        self._certificate = (
            _builder(self._name, self._name, self._key.public_key(), _LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._revoked: list[x509.RevokedCertificate] = []
        self.ca.write_bytes(self._certificate.public_bytes(_PEM))
        self._write_crl()

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def crl(self) -> Path:
        return self.folder / "ca.crl.pem"

    @property
    def federation(self) -> Path:
        """The federation file (docs/format.md, section 6)."""
        return self.folder / "federation.toml"

    @property
    def trust(self) -> Trust:
        """What a verifier with this federation file believes now."""
        return Trust.from_federation(self.federation.read_text(), lambda name: (self.folder / name).read_bytes())

    def admit(self, name: str, *, lifetime: timedelta = _LIFETIME, **rights: Sequence[str] | bool) -> Member:
        """Make a key and a certificate for *name*; *rights* are fields of `Member` (default: every RSE and scope)."""
        uri = f"https://{name.lower()}.example.org/recorder"
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(name), self._name, key.public_key(), lifetime)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        member = Member(
            name=name,
            uri=uri,
            key=self.folder / f"{name}.key.pem",
            certificate=self.folder / f"{name}.pem",
            **rights,  # type: ignore[arg-type]
        )
        member.key.touch(mode=0o600)
        member.key.write_bytes(key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        member.certificate.write_bytes(certificate.public_bytes(_PEM))
        self.members.append(member)
        self.federation.write_text(self._federation_text())
        return member

    def revoke(self, member: Member, at: datetime, reason: x509.ReasonFlags = x509.ReasonFlags.key_compromise) -> None:
        """Put the certificate of *member* on the revocation list."""
        certificate = x509.load_pem_x509_certificate(member.certificate.read_bytes())
        entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(at)
        self._revoked.append(entry.add_extension(x509.CRLReason(reason), critical=False).build())
        self._write_crl()

    def _write_crl(self) -> None:
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=self._name, last_update=now - timedelta(minutes=1), next_update=now + _LIFETIME
        )
        for entry in self._revoked:
            builder = builder.add_revoked_certificate(entry)
        self.crl.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(_PEM))

    def _federation_text(self) -> str:
        blocks = [f'name = "{_ORGANISATION}"\n']
        for member in self.members:
            lines = ["[[member]]", f"name = {json.dumps(member.name)}", 'ca = "ca.pem"', 'crl = "ca.crl.pem"']
            lines.append(f"subject = {json.dumps(f'URI:{member.uri}')}")
            rights = {right: list(getattr(member, right)) for right in ("rses", "create", "obsolete", "revoke")}
            lines += [f"{right} = {json.dumps(patterns)}" for right, patterns in rights.items()]
            lines.append(f"outside = {json.dumps(member.outside)}\n")
            blocks.append("\n".join(lines))
        return "\n".join(blocks)


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    # A minute ago: the clocks of two processes of one machine are the same, but a test may look a moment back.
    start = datetime.now(UTC) - timedelta(minutes=1)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=start,
        not_valid_after=start + lifetime,
    )


def _usage(**given: bool) -> x509.KeyUsage:
    every = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{usage: given.get(usage, False) for usage in every})
