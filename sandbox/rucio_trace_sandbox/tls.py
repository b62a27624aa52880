"""Server certificates for loopback, and client certificates for its users, from one throw-away CA."""

from __future__ import annotations

import ipaddress
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LoopbackTls"]

_PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class LoopbackTls:
    """Files in `folder`: `ca.pem`, which to trust, and `host.pem` with `host.key`, of 127.0.0.1 and localhost."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, name: str = "localhost") -> LoopbackTls:
        """Make them; with another *name* than localhost, for a server that is not who it should be."""
        tls = cls(folder)
        (folder / "ca").mkdir(parents=True)
        ca_key = ec.generate_private_key(ec.SECP256R1())
        ca_name = _name("sandbox server CA")
        usages = dict.fromkeys(("key_cert_sign", "crl_sign", "digital_signature"), True)
        ca = (
            _builder(ca_name, ca_name, ca_key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(**usages), critical=True)
            .sign(ca_key, hashes.SHA256())
        )
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(name)]
        names += [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))] if name == "localhost" else []
        host = (
            _builder(_name(name), ca_name, key)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(ca_key, hashes.SHA256())
        )
        tls.ca.write_bytes(ca.public_bytes(_PEM))
        tls.certificate.write_bytes(host.public_bytes(_PEM))
        pkcs8 = serialization.PrivateFormat.PKCS8
        tls.key.write_bytes(key.private_bytes(_PEM, pkcs8, serialization.NoEncryption()))
        tls.key.chmod(0o400)
        # The form of a grid's folder of CAs.
        (tls.ca_folder / "sandbox.pem").write_bytes(tls.ca.read_bytes())
        subprocess.run(["openssl", "rehash", str(tls.ca_folder)], check=True, capture_output=True)
        return tls

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def ca_folder(self) -> Path:
        return self.folder / "ca"

    @property
    def certificate(self) -> Path:
        return self.folder / "host.pem"

    @property
    def key(self) -> Path:
        return self.folder / "host.key"

    @property
    def pair(self) -> bytes:
        """Certificate and key in one file, as a proxy certificate has them."""
        return self.certificate.read_bytes() + self.key.read_bytes()


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - timedelta(minutes=1),
        not_valid_after=now + timedelta(days=30),
    )


def _usage(**given: bool) -> x509.KeyUsage:
    every = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{usage: given.get(usage, False) for usage in every})
