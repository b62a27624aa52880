"""Keys: made, certified, described."""

import subprocess
from pathlib import Path

import pytest
from authority import DAY, NOW, Authority
from cryptography import x509

from rucio_trace.certificates import load
from rucio_trace.envelope import Signer
from rucio_trace.errors import ConfigurationError
from rucio_trace.keys import describe, generate_key, load_key, request_certificate

ROOT = Authority.root()
URI = "https://site-a.example/recorder"


def test_a_request_carries_what_a_signer_needs() -> None:
    request = x509.load_pem_x509_csr(request_certificate(generate_key(), "recorder", URI))
    assert request.is_signature_valid
    usage = request.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [URI]


def test_openssl_reads_key_and_request(tmp_path: Path) -> None:
    key = generate_key(b"secret")
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "request.pem").write_bytes(request_certificate(key, "recorder", URI, b"secret"))
    checks = (
        ["openssl", "pkey", "-in", "key.pem", "-passin", "pass:secret", "-noout", "-check"],
        ["openssl", "req", "-in", "request.pem", "-verify", "-noout"],
    )
    for command in checks:
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_a_wrong_password_and_a_wrong_name_are_mistakes_of_the_operators() -> None:
    with pytest.raises(ConfigurationError):
        load_key(generate_key(b"secret"), b"wrong")
    with pytest.raises(ConfigurationError):
        load_key(generate_key(b"secret"))
    with pytest.raises(ConfigurationError):
        load_key(generate_key(), b"unasked")
    with pytest.raises(ConfigurationError):
        request_certificate(generate_key(), "recorder", "https://é.example")
    with pytest.raises(ConfigurationError):
        request_certificate(generate_key(), "")


def test_a_key_made_here_signs_once_it_is_certified() -> None:
    pem = generate_key()
    issued = ROOT.issue(key=load_key(pem), uri=URI)
    assert Signer.load(pem, issued.chain_pem).fingerprint == load(issued.der).fingerprint


def test_a_description_says_what_verifiers_will_see() -> None:
    issued = ROOT.below().issue(uri=URI)
    seen = describe(issued.chain_pem, NOW)
    assert (seen.uris, seen.algorithm, seen.problems) == ((URI,), "ECDSA-SHA256", ())
    assert seen.intermediates == ("CN=Test Issuing CA,O=Test Federation",)
    assert seen.fingerprint == issued.signer.fingerprint


def test_a_description_names_every_reason_to_refuse() -> None:
    assert describe(ROOT.pem, NOW).problems == ("it is an authority's certificate, which never signs traces",)
    [mute] = describe(ROOT.issue(key_usage=None).pem, NOW).problems
    assert "digitalSignature" in mute
    old = ROOT.issue(until=NOW - DAY)
    assert len(describe(old.pem, NOW, generate_key()).problems) == 2
    assert "not valid before" in describe(old.pem, NOW - 1000 * DAY).problems[0]
    with pytest.raises(ConfigurationError):
        describe(b"junk", NOW)
