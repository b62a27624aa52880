"""Rebuild the vectors: `python tests/vectors/build.py`. Every run makes new keys and signatures.

`valid/` holds traces that must be accepted, `invalid/` what must be refused; a file's name says
what it is, and `faults.json` which fault it must give ("Malformed" where no trace can be read).
`pki/` holds the anchor, the federation file and the revocation list by which they are judged, at
the time `authority.NOW`. `cdse/` was made by the field's own client and server, and is not rebuilt.
`batch/` holds the list that `valid/verify-batch.json` speaks of, and the proof of one of its lines. The examples in
docs/format.md are `valid/create-observed.json` and this list and proof.
"""

import base64
import copy
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "unit"))

from authority import (  # noqa: E402 - it lies beside the tests
    DAY,
    HASH,
    NOW,
    OTHER,
    PRODUCT,
    Authority,
    Issued,
    _certificate,
    declared,
    made,
    name,
    signed_raw,
    statement,
    usage,
)
from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: E402
from cryptography.hazmat.primitives.serialization import Encoding  # noqa: E402

from rucio_trace.batch import (  # noqa: E402
    Line,
    LineProof,
    list_fields,
    list_name,
    proof_to_json,
    write_line,
    write_lines,
)
from rucio_trace.envelope import Signer, Trace, to_json  # noqa: E402
from rucio_trace.merkle import prove_inclusion  # noqa: E402
from rucio_trace.trace import (  # noqa: E402
    Cause,
    Content,
    Event,
    Input,
    ProductKey,
    Service,
    Source,
    format_time,
    new_event_id,
    serialise,
)

WEAK_BITS = 1024

FEDERATION = """\
# The federation of the test vectors: one site, one producer, one archive outside Rucio.
name = "Vectors"

[[member]]
name = "SITE-A"
ca = ["root.pem"]
crl = ["issuing.crl"]
subject = "URI:https://site-a.example/*"
rses = ["SITE-A_*"]

[[member]]
name = "Producer"
ca = ["root.pem"]
crl = ["issuing.crl"]
subject = "DN:CN=producer,O=Test Federation"
create = ["s2"]
obsolete = ["s2"]
revoke = ["s2"]
outside = true
"""


class Federation:
    def __init__(self) -> None:
        self.root = Authority.root()
        self.issuing = self.root.below()
        self.site = self.issuing.issue(uri="https://site-a.example/recorder")
        self.producer = self.issuing.issue("producer")
        self.rsa = self.issuing.issue("producer", key=rsa.generate_private_key(65537, 2048))
        self.revoked = self.issuing.issue(uri="https://site-a.example/stolen")
        self.crl = self.issuing.crl((self.revoked.certificate, NOW - 2 * DAY, x509.ReasonFlags.key_compromise))


# Three replicas of one RSE, read one after the other.
LINES = tuple(
    Line(
        f"s2:S2A_{tile}.SAFE.zip", PRODUCT.generation, f"BLAKE3:{digest}", format_time(NOW - DAY - number * DAY / 1440)
    )
    for number, tile, digest in ((3, "T33UVP", HASH), (2, "T33UVQ", OTHER), (1, "T33UVR", OTHER[::-1]))
)
LIST = write_lines(LINES)
BATCH: dict[str, Any] = {
    **list_fields(LIST),
    "name": list_name("SITE-A_DISK", format_time(NOW - DAY)),
    "did": None,
    "generation": None,
    "observed": None,
}


def valid(f: Federation) -> dict[str, Trace]:
    site, producer = f.site.signer, f.producer.signer
    obsolete = made(producer, Event.OBSOLETE, obsolescence="wrong calibration", replaced_by="S2A_T33UVP_N0510.SAFE.zip")
    batch = made(site, Event.VERIFY, **BATCH)
    members = tuple(Content(f"S2A_T33UVP.SAFE/IMG_DATA/B{band:02}.jp2", OTHER) for band in range(1, 4))
    hostile = 'a\nb\u202e & <tag> \u2028 é "q" \\ .zip'
    return {
        "create-observed": made(
            site,
            contents=members,
            hashes={"ADLER32": "1a2b3c4d"},
            attributes={"platform": "Sentinel-2A", "cloudCover": 12.5},
            cause=Cause(account="p-7c1f0d", action="upload"),
        ),
        "create-declared": declared(producer, inputs=(Input("S2A_L0.tar", OTHER),)),
        "create-adopted": made(site, adopted=True),
        "create-by-rsa": declared(f.rsa.signer),
        "create-outside-rucio": made(producer, product=None, service=Service("L1C", "processing", "example")),
        "copy": made(site, Event.COPY, source=Source("SITE-B_DISK", new_event_id()), cause=Cause(rule="5" * 32)),
        "copy-before-its-creation": made(site, Event.COPY, source=Source(None, None)),
        "copy-recorded-without-bytes": made(site, Event.COPY, method="none", observed=None),
        "verify": made(site, Event.VERIFY),
        "verify-batch": batch,
        "revoke-of-batch": made(
            site,
            Event.REVOKE,
            **BATCH | {"rse": "SITE-A_DISK", "revokes": batch.id, "obsolescence": "the storage served from a cache"},
        ),
        "corrupt": made(site, Event.CORRUPT),
        "corrupt-without-an-origin": made(site, Event.CORRUPT, hash="1a2b3c4d", hash_algorithm="ADLER32"),
        "lost": made(site, Event.LOST),
        "delete-unobserved": made(site, Event.DELETE, unobserved=True, method=None, observed=None),
        "obsolete": obsolete,
        "revoke-of-obsolete": made(producer, Event.REVOKE, revokes=obsolete.id, obsolescence="was right after all"),
        "hostile-name": made(site, product=replace(PRODUCT, name=f"a/b/{hostile}"), name=hostile),
        "other-vo": made(site, product=replace(PRODUCT, vo="atl")),
        "empty-file": made(site, size=0),
        "empty-lists": made(site, contents=(), inputs=()),
    }


def invalid(f: Federation) -> dict[str, tuple[Any, str]]:
    """By name: the file's content (JSON value, or text as it is) and the fault it must give."""
    return {**altered(f), **untrusted(f), **unreadable(f)}


def altered(f: Federation) -> dict[str, tuple[Any, str]]:
    site = f.site.signer
    trace = to_json(made(site, contents=(Content("a", OTHER),), inputs=(Input("b", OTHER),)))
    other = to_json(made(f.producer.signer, Event.OBSOLETE, obsolescence="why"))

    def change(value: Any, *path: Any, to: Any = None) -> Any:
        changed = copy.deepcopy(value)
        part = changed
        for step in path[:-1]:
            part = part[step]
        if to is None:
            del part[path[-1]]
        else:
            part[path[-1]] = to
        return [changed]

    text = trace["signature"]["message"]
    differs = {
        "product-hash-changed": change(trace, "product", "hash", to=OTHER),
        "product-size-changed": change(trace, "product", "size", to=1),
        "product-size-as-float": change(trace, "product", "size", to=735683295.0),
        "product-name-changed": change(trace, "product", "name", to="other.zip"),
        "contents-added": change(
            trace, "product", "contents", to=[*trace["product"]["contents"], {"path": "c", "hash": HASH}]
        ),
        "contents-removed": change(trace, "product", "contents"),
        "inputs-added": change(
            trace, "product", "inputs", to=[*trace["product"]["inputs"], {"name": "c", "hash": HASH}]
        ),
        "inputs-removed": change(trace, "product", "inputs"),
        "event-changed": change(trace, "event", to="COPY"),
        "algorithm-of-digest-changed": change(trace, "hash_algorithm", to="SHA256"),
        "obsolescence-changed": change(other, "obsolescence", to="because"),
        "obsolescence-removed": change(other, "obsolescence"),
        "obsolescence-added": change(trace, "obsolescence", to="because"),
        "id-changed": change(trace, "id", to=new_event_id()),
        "timestamp-changed": change(trace, "timestamp", to=format_time(NOW)),
        "origin-changed": change(trace, "origin", to="SITE-B"),
        "unsigned-key-added": change(trace, "note", to="trust me"),
        "unsigned-product-key-added": change(trace, "product", "checksum", to="x"),
    }
    return {
        **{key: (value, "EnvelopeDiffers") for key, value in differs.items()},
        "signed-text-changed": (change(trace, "signature", "message", to=text.replace('"s2:', '"s3:')), "BadSignature"),
        "signature-of-another-text": (
            change(trace, "signature", "signature", to=other["signature"]["signature"]),
            "BadSignature",
        ),
        "certificate-of-another-signer": (
            change(trace, "signature", "certificate", to=other["signature"]["certificate"]),
            "WrongSigner",
        ),
        "certificate-renewed-with-the-same-key": (
            change(
                trace,
                "signature",
                "certificate",
                to=_encoded(f.issuing.issue(key=f.site.key, uri="https://site-a.example/r").der),
            ),
            "WrongSigner",
        ),
        "signature-algorithm-of-another-key": (
            change(trace, "signature", "algorithm", to="RSA-SHA256"),
            "WrongAlgorithm",
        ),
        "signature-not-canonical-base64": (
            change(trace, "signature", "signature", to=trace["signature"]["signature"] + "\n"),
            "MessageUnreadable",
        ),
        "certificate-cut": (change(trace, "signature", "certificate", to="MIIB"), "CertificateUnreadable"),
        "signature-stripped": (
            change(trace, "signature", to={"algorithm": "", "certificate": "", "message": "", "signature": ""}),
            "Unsigned",
        ),
        "signature-stripped-text-kept": (change(trace, "signature", "signature", to=""), "Unsigned"),
    }


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def untrusted(f: Federation) -> dict[str, tuple[Any, str]]:
    site, producer, issuing = f.site.signer, f.producer.signer, f.issuing
    stranger = Authority.root("Test Root").issue(uri="https://site-a.example/recorder")
    self_signed = _self_signed()
    selling = "https://site-a.example/x"
    expired = issuing.issue(uri=selling, since=NOW - 20 * DAY, until=NOW - DAY / 2)
    tomorrow = issuing.issue(uri=selling, since=NOW + DAY)
    no_usage = issuing.issue(uri=selling, key_usage=usage(key_encipherment=True))
    ca = issuing.below("https CA")
    other_product = ProductKey("example", "def", "mock", "x.bin", PRODUCT.generation)
    newer = json.loads(serialise(statement(site)))
    newer |= {"schema": "rucio-trace/2", "colour": "blue"}
    cases: dict[str, tuple[Any, str]] = {
        "unknown-authority-of-the-same-name": (made(stranger.signer), "UnknownIssuer"),
        "self-signed": (made(self_signed), "UnknownIssuer"),
        "chain-missing": (replace(made(site), chain=()), "UnknownIssuer"),
        "chain-with-a-stranger": (replace(made(site), chain=(*site.chain, stranger.der)), "ChainBroken"),
        "signer-of-no-member": (made(issuing.issue("nobody").signer), "OutsidePattern"),
        "signer-with-a-second-name": (
            made(_two_uris(issuing)),
            "OutsidePattern",
        ),
        "rse-of-another-site": (made(site, Event.COPY, rse="SITE-B_DISK"), "OutsideRights"),
        "batch-of-another-site": (made(site, Event.VERIFY, **BATCH, rse="SITE-B_DISK"), "OutsideRights"),
        "batch-by-a-producer": (made(producer, Event.VERIFY, **BATCH), "OutsideRights"),
        "site-declares-a-product": (declared(site), "OutsideRights"),
        "site-marks-obsolete": (made(site, Event.OBSOLETE), "OutsideRights"),
        "producer-attests-a-replica": (made(producer, Event.VERIFY), "OutsideRights"),
        "producer-in-another-scope": (declared(producer, product=other_product), "OutsideRights"),
        "revoke-in-another-scope": (
            made(producer, Event.REVOKE, product=other_product, revokes=new_event_id()),
            "OutsideRights",
        ),
        "site-speaks-outside-rucio": (made(site, product=None), "OutsideRights"),
        "expired": (made(expired.signer), "Expired"),
        "not-yet-valid": (_raw(tomorrow.signer, time=format_time(NOW)), "NotYetValid"),
        "time-in-the-future": (made(site, time=format_time(NOW + DAY)), "TimeInFuture"),
        "time-before-the-certificate": (_raw(site, time=format_time(NOW - 1000 * DAY)), "TimeBeforeCertificate"),
        "certificate-not-for-signing": (_raw(_loaded(no_usage)), "NoDigitalSignature"),
        "signed-by-an-authority": (_raw(_loaded(ca)), "CaSigned"),
        "weak-rsa-key": (
            _raw(_loaded(issuing.issue(uri=selling, key=rsa.generate_private_key(65537, WEAK_BITS)))),
            "WeakKey",
        ),
        "another-curve": (
            _raw(_loaded(issuing.issue(uri=selling, key=ec.generate_private_key(ec.SECP384R1())))),
            "WeakKey",
        ),
        "revoked-for-key-compromise": (made(f.revoked.signer), "CertificateRevoked"),
        "newer-schema": (signed_raw(json.dumps(newer), site, id=newer["event_id"]), "NewerSchema"),
    }
    return {key: ([to_json(t) if isinstance(t, Trace) else t], fault) for key, (t, fault) in cases.items()}


def _loaded(issued: Issued) -> Signer:
    """A signer with a certificate that `Signer.load` refuses."""
    return Signer(issued.key, issued.der, tuple(c.public_bytes(Encoding.DER) for c in issued.chain))


def _self_signed() -> Signer:
    key = ec.generate_private_key(ec.SECP256R1())
    own = name("recorder")
    return Issued(key, _certificate(own, key, own, key, uri="https://site-a.example/recorder")).signer


def _two_uris(issuing: Authority) -> Signer:
    names = x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(f"https://site-{s}.example/recorder") for s in "ab"]
    )
    return issuing.issue(extensions=((names, False),)).signer


def _raw(signer: Signer, **changes: Any) -> dict[str, Any]:
    text = serialise(statement(signer, **changes))
    return signed_raw(text, signer)


def unreadable(f: Federation) -> dict[str, tuple[Any, str]]:
    """Signed by a trusted signer, and still no statement; or no JSON at all."""
    site = f.site.signer
    good = json.loads(serialise(statement(site)))

    def text(**changes: Any) -> str:
        return json.dumps({k: v for k, v in {**good, **changes}.items() if v is not ...}, separators=(",", ":"))

    whole = json.loads(serialise(statement(site, Event.VERIFY, **BATCH)))

    def batch(**changes: Any) -> str:
        return json.dumps({k: v for k, v in {**whole, **changes}.items() if v is not ...}, separators=(",", ":"))

    deep: Any = 0
    for _ in range(20):
        deep = [deep]
    texts = {
        "text-with-duplicate-key": text()[:-1] + ',"size":1}',
        "text-with-nan": text(attributes={"x": "N"}).replace('"N"', "NaN"),
        "text-with-infinity": text(attributes={"x": "N"}).replace('"N"', "1e999"),
        "text-with-lone-surrogate": text(attributes={"x": "N"}).replace('"N"', '"\\ud800"'),
        "text-with-noncharacter": text(attributes={"x": "\uffff"}),
        "text-with-byte-order-mark": "\ufeff" + text(),
        "text-with-huge-integer": text(attributes={"x": 2**53}),
        "text-with-depth-20": text(attributes={"x": deep}),
        "text-that-is-no-object": "[]",
        "size-negative": text(size=-1),
        "size-too-large": text(size=2**53),
        "size-true": text(size=True),
        "size-float": text(size=3.0),
        "key-unknown": text(colour="blue"),
        "key-missing-salt": text(salt=...),
        "key-missing-signer": text(signer=...),
        "key-null": text(vo=None),
        "schema-number": text(schema=1),
        "event-unknown": text(event="MOVE"),
        "event-id-upper-case": text(event_id=good["event_id"].upper()),
        "digest-upper-case": text(hash=HASH.upper()),
        "digest-of-wrong-length": text(hash=HASH[:-2]),
        "digest-weak": text(hash="1a2b3c4d", hash_algorithm="ADLER32"),
        "algorithm-unknown": text(hash_algorithm="CRC32"),
        "algorithm-repeated": text(hashes={"BLAKE3": HASH}),
        "product-without-generation": text(generation=...),
        "name-of-another-did": text(name="other.zip"),
        "name-with-slash": text(name="a/b", did=..., rucio=..., generation=..., rse=...),
        "name-with-nul": text(name="a\0b", did="s2:a\0b"),
        "name-too-long": text(name="x" * 3000, did="s2:" + "x" * 3000),
        "vo-default": text(vo="def"),
        "rse-outside-rucio": text(did=..., rucio=..., generation=...),
        "rse-missing-in-copy": text(event="COPY", rse=...),
        "rse-in-obsolete": text(event="OBSOLETE"),
        "method-missing": text(method=...),
        "method-none-in-create": text(method="none"),
        "observed-missing": text(observed=...),
        "found-missing-in-corrupt": text(event="CORRUPT"),
        "found-in-create": text(found={"size": 1, "hashes": {}}),
        "revokes-missing": text(event="REVOKE", rse=...),
        "adopted-false": text(adopted=False),
        "unobserved-in-copy": text(event="COPY", unobserved=True),
        "batch-in-create": batch(event="CREATE"),
        "batch-of-a-product": batch(did=good["did"], generation=good["generation"]),
        "batch-under-the-name-of-a-file": batch(name="S2A_T33UVP.SAFE.zip"),
        "batch-without-rse": batch(rse=...),
        "batch-without-rucio": batch(rucio=...),
        "batch-without-method": batch(method=...),
        "batch-by-transfer": batch(method="transfer"),
        "batch-with-observed": batch(observed=good["observed"]),
        "batch-with-source": batch(source={"rse": None, "trace": None}),
        "batch-in-sha256": batch(hash_algorithm="SHA256"),
        "batch-of-no-line": batch(batch={**whole["batch"], "count": 0}),
        "batch-too-long": batch(batch={**whole["batch"], "count": 10_001}),
        "batch-without-root": batch(batch={"count": 3}),
        "batch-with-more": batch(batch={**whole["batch"], "lines": []}),
        "batch-root-short": batch(batch={**whole["batch"], "root": HASH[:-2]}),
        "time-without-zone": text(time="2026-06-01T12:00:00.000000"),
        "time-with-offset": text(time="2026-06-01T12:00:00.000000+00:00"),
        "time-impossible": text(time="2026-02-30T12:00:00.000000Z"),
        "time-in-other-digits": text(time="２０２６-06-01T12:00:00.000000Z"),
        "contents-path-climbs-out": text(contents=[{"path": "../etc/passwd", "hash": HASH}]),
        "contents-path-absolute": text(contents=[{"path": "/etc/passwd", "hash": HASH}]),
        "contents-path-twice": text(contents=[{"path": "a", "hash": HASH}] * 2),
        "contents-extra-key": text(contents=[{"path": "a", "hash": HASH, "size": 1}]),
        "contents-no-list": text(contents={}),
        "salt-short": text(salt="00"),
        "cause-unknown-key": text(cause={"who": "me"}),
        "source-half": text(event="COPY", source={"rse": "A"}),
    }
    claims = {key: good[key] for key in ("name", "size", "hash")}
    signed = {
        key: ([signed_raw(value, site, event="CREATE", product=claims)], "MessageUnreadable")
        for key, value in texts.items()
    }
    files = {
        "file-empty": "",
        "file-no-json": "-----BEGIN CERTIFICATE-----",
        "file-number": "1",
        "file-with-byte-order-mark": "\ufeff[]",
        "file-cut": json.dumps([to_json(made(site))])[:-40],
        "file-duplicate-key": '[{"event":"CREATE","event":"COPY","product":{"name":"x","size":0,"hash":"'
        + HASH
        + '"}}]',
        "file-two-values": "[] []",
    }
    items = {"file-null-in-array": "[null]", "file-without-product": json.dumps([{"event": "CREATE"}])}
    unreadable = {key: (value, "MessageUnreadable") for key, value in items.items()}
    return {**signed, **unreadable, **{key: (value, "Malformed") for key, value in files.items()}}


def write(folder: str, files: dict[str, str]) -> None:
    target = HERE / folder
    target.mkdir(exist_ok=True)
    for old in target.iterdir():
        old.unlink()
    for key, text in files.items():
        (target / key).write_bytes(text.encode("utf-8"))


def main() -> None:
    f = Federation()
    traces = valid(f)
    good = {key: [to_json(trace)] for key, trace in traces.items()}
    path = prove_inclusion([write_line(line) for line in LINES], 1)
    proof = _indented(proof_to_json(LineProof(traces["verify-batch"], LINES[1], 1, path)))
    bad = invalid(f)
    write("pki", {"root.pem": f.root.pem.decode(), "issuing.crl": f.crl.decode(), "federation.toml": FEDERATION})
    write("valid", {f"{key}.json": _indented(value) for key, value in good.items()})
    write("batch", {BATCH["name"]: LIST.decode(), "proof.json": proof + "\n"})
    write(
        "invalid",
        {
            f"{key}.json": value if isinstance(value, str) else json.dumps(value, indent=1)
            for key, (value, _) in bad.items()
        },
    )
    faults = {key: fault for key, (_, fault) in sorted(bad.items())}
    (HERE / "faults.json").write_text(json.dumps(faults, indent=1) + "\n")
    into_document("example", "json", _indented(good["create-observed"]))
    into_document("list", "jsonl", LIST.decode().rstrip())
    into_document("proof", "json", proof)


def _indented(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def into_document(mark: str, language: str, text: str) -> None:
    """Put *text* in docs/format.md, between the comments that bear *mark*."""
    document = ROOT / "docs" / "format.md"
    marked = re.compile(rf"(<!-- {mark}:[^\n]*-->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    block = f"```{language}\n{text}\n```\n"
    document.write_text(marked.sub(lambda m: m[1] + block + m[2], document.read_text()))


if __name__ == "__main__":
    main()
