"""The envelope: a statement with its signature, as one JSON object anyone can check.

The object is a trace of the Copernicus Traceability Service: beside the signed text it repeats
what the text says, unsigned. We read those repetitions only to compare them, strictly, with the
signed text: each difference is kept as a fault and the trace is worth nothing
(docs/format.md, section 5). `parse_traces` proves nothing: see `verify.check_trace`. Pure.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from rucio_trace import certificates, strictjson
from rucio_trace.certificates import SigningKey, key_algorithm
from rucio_trace.errors import ConfigurationError, Malformed, Refuted
from rucio_trace.faults import EnvelopeDiffers, Fault, MessageUnreadable
from rucio_trace.keys import load_key
from rucio_trace.statement import SCHEMA, Event, Statement, parse_time
from rucio_trace.trace import parse, read, read_claims, serialise

__all__ = ["MAX_CHAIN", "Signer", "Trace", "dumps", "from_json", "parse_traces", "sign", "to_json", "unreadable"]

_CACHED_CHARACTERS = 16 * 1024  # of one certificate: what strangers send can be of any size
MAX_CHAIN = 8  # intermediates; public authorities use one or two, grids up to three


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A statement and its signature, not yet verified.

    `message` is the signed text, verbatim; `certificate` and `chain` are DER, the signer's first.
    `statement` is read from `message`; of a trace without a readable message it is what the
    envelope claims, and `faults` or the empty `signature` tell. Never use `statement` of a trace
    that has `faults`. The fields named `claimed_` are signed by nobody.
    """

    statement: Statement
    message: str
    signature: bytes
    certificate: bytes
    chain: tuple[bytes, ...] = ()
    algorithm: str = ""
    claimed_id: str | None = None
    claimed_timestamp: str | None = None
    claimed_origin: str | None = None
    claimed_hash_algorithm: str | None = None
    claimed_obsolescence: str | None = None
    faults: tuple[Fault, ...] = ()

    @property
    def id(self) -> str:
        """What a REVOKE names: the signed `event_id`, or the SHA-256 of a text that has none."""
        return self.statement.event_id or self.message_digest

    @property
    def message_digest(self) -> str:
        return hashlib.sha256(self.message.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def not_signed(self) -> dict[str, str]:
        """What stands beside the signed text and is in no way covered by it: noted, never believed.

        Of ours it is nothing: all that stands there repeats the text.
        """
        if self.statement.schema is not None:
            return {}
        claimed = {key: getattr(self, f"claimed_{key}") for key in _CLAIMED}
        return {key: value for key, value in claimed.items() if value is not None and key not in self.statement.extra}

    @classmethod
    def restore(
        cls, message: str, signature: bytes, certificate: bytes, chain: Iterable[bytes] = (), **claimed: Any
    ) -> "Trace":
        """Rebuild a trace from its stored parts; *claimed* are the `claimed_` fields, if they were kept.

        Raises:
            Malformed: the message is no statement, or the certificate is none.
        """
        return cls(
            statement=parse(message),
            message=message,
            signature=signature,
            certificate=certificate,
            chain=tuple(chain),
            algorithm=certificates.load(certificate).algorithm or "",
            **claimed,
        )


# ---------------------------------------------------------------------------------------- signing


class Signer:
    """A key and the certificates that vouch for it; signs statements and nothing else."""

    def __init__(self, key: SigningKey, certificate: bytes, chain: tuple[bytes, ...]) -> None:
        self._key = key
        self._loaded = certificates.load(certificate)
        self.certificate = certificate
        self.chain = chain
        self.algorithm = key_algorithm(key) or ""

    @classmethod
    def load(cls, key_pem: bytes, chain_pem: bytes, password: bytes | None = None) -> "Signer":
        """Read a private key and its certificates, the signer's own first.

        Raises:
            ConfigurationError: unreadable, of the wrong kind, or they do not belong together.
        """
        key = load_key(key_pem, password)
        try:
            chain = certificates.load_pem(chain_pem, "signer's certificate")
        except Malformed as error:
            raise ConfigurationError("signer's certificate", expected=error.expected, found=error.found) from None
        if chain[0].key != key.public_key():
            raise ConfigurationError("signing key", expected=f"the key of {chain[0].subject}", found="another key")
        if chain[0].is_ca or not chain[0].may_sign:
            raise ConfigurationError(
                "signer's certificate",
                expected="keyUsage digitalSignature and no CA",
                found=f"{chain[0].subject}, which no verifier accepts",
            )
        return cls(key, chain[0].der, tuple(c.der for c in chain[1:]))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate: what `Statement.signer` must be."""
        return self._loaded.fingerprint

    @property
    def subject(self) -> str:
        return self._loaded.subject

    @property
    def uris(self) -> tuple[str, ...]:
        return self._loaded.uris

    @property
    def not_before(self) -> datetime:
        return self._loaded.not_before

    @property
    def not_after(self) -> datetime:
        return self._loaded.not_after

    def _sign(self, data: bytes) -> bytes:
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(data, ec.ECDSA(hashes.SHA256()))
        return self._key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def sign(statement: Statement, signer: Signer) -> Trace:
    """Sign *statement*; it must name *signer* and a time at which its certificate was valid.

    Raises:
        Malformed: the statement breaks a rule of the format.
        Refuted: no verifier would accept the result.
    """
    if statement.schema != SCHEMA:
        raise Malformed("schema", expected=SCHEMA, found=statement.schema or "none")
    message = serialise(statement)
    if statement.signer != signer.fingerprint:
        raise Refuted("signer", expected=signer.fingerprint, found=statement.signer or "none")
    if not signer.not_before <= parse_time(statement.time or "") <= signer.not_after:
        raise Refuted(
            "time",
            expected=f"within the certificate's life, {signer.not_before} to {signer.not_after}",
            found=statement.time or "",
        )
    return Trace(
        statement=statement,
        message=message,
        signature=signer._sign(message.encode("utf-8")),
        certificate=signer.certificate,
        chain=signer.chain,
        algorithm=signer.algorithm,
    )


# ---------------------------------------------------------------------------------------- writing


def to_json(trace: Trace) -> dict[str, Any]:
    """The trace as the field's JSON object; for ours, all that stands outside repeats what is signed."""
    s = trace.statement
    product: dict[str, Any] = {"name": s.name, "size": s.size, "hash": s.hash}
    if s.contents is not None:
        product["contents"] = [{"path": c.path, "hash": c.hash} for c in s.contents]
    if s.inputs is not None:
        product["inputs"] = [{"name": i.name, "hash": i.hash} for i in s.inputs]
    signature: dict[str, Any] = {
        "algorithm": trace.algorithm,
        "certificate": _encoded(trace.certificate),
        "message": trace.message,
        "signature": _encoded(trace.signature),
    }
    if trace.chain:
        signature["chain"] = [_encoded(der) for der in trace.chain]
    ours = s.schema is not None
    outer = {
        "id": s.event_id if ours else trace.claimed_id,
        "event": str(s.event),
        "hash_algorithm": s.hash_algorithm if ours else trace.claimed_hash_algorithm,
        "obsolescence": s.obsolescence if ours else trace.claimed_obsolescence,
        "product": product,
        "signature": signature,
        "timestamp": s.time if ours else trace.claimed_timestamp,
        "origin": s.site if ours else trace.claimed_origin,
    }
    return {key: value for key, value in outer.items() if value is not None}


def dumps(traces: Iterable[Trace]) -> str:
    """A JSON array of *traces*, compact: what `parse_traces` reads."""
    return json.dumps([to_json(trace) for trace in traces], ensure_ascii=False, separators=(",", ":"))


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


# ---------------------------------------------------------------------------------------- reading


def parse_traces(data: bytes, *, max_bytes: int = strictjson.MAX_BYTES) -> list[Trace]:
    """Read a JSON array of traces, a single one, or an answer with `traces`: ours, or the Traceability Service's.

    A trace that cannot be read, or differs from what stands beside its signed text, is returned with
    `faults`, so that one bad trace does not hide the others.

    Raises:
        Malformed: the text as a whole is not that; no other error escapes.
    """
    value = strictjson.read(data, "traces", max_bytes=max_bytes)
    if isinstance(value, dict) and "product" not in value and isinstance(value.get("traces"), list):
        value = value["traces"]
    if isinstance(value, list):
        return [from_json(item) for item in value]
    return [_trace(_object(value, "traces"))]


def from_json(item: Any) -> Trace:
    """The trace in *item*, as `strictjson` read it; what is none becomes a trace that says nothing of any file."""
    try:
        return _trace(_object(item, "trace"))
    except Malformed as error:
        return unreadable(error)


def unreadable(error: Malformed) -> Trace:
    """What stands for a trace that cannot be read: it says nothing of any file."""
    nothing = Statement(hash="", name="", size=0, event=Event.CREATE, schema=None)
    fault = MessageUnreadable(error.subject, error.expected, error.found)
    return Trace(statement=nothing, message="", signature=b"", certificate=b"", faults=(fault,))


def _trace(outer: dict[str, Any]) -> Trace:
    product = _object(outer.get("product"), "product")
    signature = _object(outer.get("signature") or {}, "signature")
    claimed: dict[str, Any] = {f"claimed_{key}": _optional_text(outer, key) for key in _CLAIMED}
    message = signature.get("message") or ""
    try:
        parts: dict[str, Any] = {
            "message": _string(signature, "message"),
            "signature": _decoded("signature", _string(signature, "signature")),
            "certificate": _certificate(_string(signature, "certificate")),
            "chain": _chain(signature.get("chain")),
            "algorithm": _string(signature, "algorithm"),
        }
        if message:
            statement, signed = read(message)
            return Trace(statement=statement, **parts, **claimed, faults=_differences(outer, statement, signed))
    except Malformed as error:
        fault = MessageUnreadable(f"signed text, {error.subject}", error.expected, error.found)
        parts = {"message": message if isinstance(message, str) else "", "signature": b"", "certificate": b""}
        return Trace(statement=_claimed_statement(outer, product), **parts, **claimed, faults=(fault,))
    return Trace(statement=_claimed_statement(outer, product), **parts, **claimed)


_CLAIMED = ("id", "timestamp", "origin", "hash_algorithm", "obsolescence")


def _object(value: Any, subject: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(subject, expected="an object", found=type(value).__name__)
    return value


def _optional_text(outer: Mapping[str, Any], key: str) -> str | None:
    value = outer.get(key)
    if value is not None and not isinstance(value, str):
        raise Malformed(key, expected="a text", found=repr(value))
    return value


def _string(signature: Mapping[str, Any], key: str) -> str:
    value = signature.get(key, "")
    if not isinstance(value, str):
        raise Malformed(key, expected="a text", found=repr(value))
    return value


def _decoded(key: str, text: Any) -> bytes:
    """Base64 in its one canonical form: otherwise a changed character could go unseen."""
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, TypeError, binascii.Error):
        raise Malformed(key, expected="base64", found=repr(text)) from None
    if _encoded(data) != text:
        raise Malformed(key, expected="canonical base64", found=text)
    return data


def _certificate(text: str) -> bytes:
    return _known_certificate(text) if len(text) <= _CACHED_CHARACTERS else _decoded("certificate", text)


@lru_cache(maxsize=4_096)  # thousands of traces are of one signer
def _known_certificate(text: str) -> bytes:
    return _decoded("certificate", text)


def _chain(value: Any) -> tuple[bytes, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_CHAIN:
        raise Malformed("chain", expected=f"a list of at most {MAX_CHAIN} certificates", found=repr(value))
    return tuple(_decoded("chain", item) for item in value)


def _claimed_statement(outer: Mapping[str, Any], product: Mapping[str, Any]) -> Statement:
    """What an envelope without a readable signed text says of itself."""
    return read_claims({**product, "event": outer.get("event")})


# ----------------------------------------------------------------------- beside the signed text

# The unsigned key beside the text, and the signed key whose value it must repeat.
_REPEATED = {"id": "event_id", "timestamp": "time", "origin": "site"}
_OUTER_KEYS = frozenset(
    {"id", "event", "hash_algorithm", "obsolescence", "product", "signature", "timestamp", "origin"}
)
_PRODUCT_KEYS = frozenset({"name", "size", "hash", "contents", "inputs"})
_SIGNATURE_KEYS = frozenset({"algorithm", "certificate", "message", "signature", "chain"})


def _differences(outer: Mapping[str, Any], statement: Statement, signed: Mapping[str, Any]) -> tuple[Fault, ...]:
    """Every way in which the envelope says something else than the signed text."""
    faults: list[Fault] = []
    product = outer["product"]

    def compare(what: str, expected: Any, found: Any) -> None:
        if type(expected) is not type(found) or expected != found:
            faults.append(EnvelopeDiffers(what, _brief(expected), _brief(found), statement.event_id))

    compare("event", signed["event"], outer.get("event"))
    for key in ("name", "size", "hash"):
        compare(key, signed[key], product.get(key))
    for key in ("contents", "inputs"):
        beside = product.get(key)
        compare(key, signed.get(key, []), [] if beside is None else beside)
    if statement.schema is None:
        # the Traceability Service signs none of these; a text that does is held to it
        for key in signed.keys() & set(_CLAIMED):
            compare(key, signed[key], outer.get(key))
        return tuple(faults)
    compare("hash_algorithm", signed.get("hash_algorithm"), outer.get("hash_algorithm"))
    compare("obsolescence", signed.get("obsolescence"), outer.get("obsolescence"))
    for key, source in _REPEATED.items():
        if key in outer:
            compare(key, signed.get(source), outer[key])
    for part, allowed in ((outer, _OUTER_KEYS), (product, _PRODUCT_KEYS), (outer["signature"], _SIGNATURE_KEYS)):
        if unknown := part.keys() - allowed:
            faults.append(EnvelopeDiffers("keys", "the known ones", ", ".join(sorted(unknown)), statement.event_id))
    return tuple(faults)


def _brief(value: Any) -> str:
    """A value in a fault: a list of 50,000 members is told by its length."""
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return f"{len(value)} entries: {json.dumps(value, ensure_ascii=False)[:80]}"
    return str(value)
