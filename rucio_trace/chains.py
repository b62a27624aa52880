"""From a signer's certificate to an anchor: path building, with its results kept.

The paths are built by `cryptography`'s X.509 verifier. A path found once is good for the time in
which all its certificates are valid, so a second trace of the same signer costs one look-up.
No I/O; safe to call concurrently (two callers may do the same work twice).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.verification import Criticality, ExtensionPolicy, Policy, PolicyBuilder, Store, VerificationError

from rucio_trace.certificates import MIN_RSA_BITS, UNREADABLE, Certificate

__all__ = ["CACHED_SIGNERS", "Anchors", "ChainKey", "Path", "chain_key"]

_MAX_DEPTH = 8  # as many intermediates as an envelope may hold
CACHED_SIGNERS = 4096


@dataclass(frozen=True, slots=True)
class Path:
    """A signer's certificate, its issuers and, last, the anchor; valid as a whole in one span of time."""

    certificates: tuple[Certificate, ...]
    not_before: datetime
    not_after: datetime

    def valid_at(self, moment: datetime) -> bool:
        return self.not_before <= moment <= self.not_after


def _certifies(_policy: Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("keyUsage without keyCertSign in a CA certificate")


def _any_constraints(_policy: Policy, _certificate: x509.Certificate, _value: x509.BasicConstraints) -> None:
    """`cA` itself is checked by the verifier; here the extension only has to be there."""


# Public web rules (a DNS name, an extended key usage) do not fit signers; see docs/format.md, section 6.
_CA_POLICY = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _any_constraints)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _certifies)
)
_SIGNER_POLICY = ExtensionPolicy.permit_all()


ChainKey = tuple[bytes, tuple[bytes, ...]]


def chain_key(signer: Certificate, chain: tuple[Certificate, ...]) -> ChainKey:
    return signer.der, tuple(c.der for c in chain)


class Anchors:
    """The certificates we trust without asking who issued them.

    An anchor is a CA, or a signer's own certificate, which then is trusted alone.
    """

    def __init__(self, certificates: Sequence[Certificate]) -> None:
        self.certificates = tuple(certificates)
        self._store = Store([c.x509 for c in certificates]) if certificates else None
        self._known: dict[ChainKey, tuple[Path, ...]] = {}
        self._breaks: dict[ChainKey, Certificate | None] = {}

    def path(self, signer: Certificate, chain: tuple[Certificate, ...], at: datetime) -> Path | None:
        """A path that is valid at *at*; if there is none, one that was or will be; else None."""
        if self._store is None:
            return None
        key = chain_key(signer, chain)
        known = self._known.get(key)
        if known is None:
            known = self._keep(key, self._find(signer, chain, at))
        for path in known:
            if path.valid_at(at):
                return path
        may_be = known and signer.not_before <= at <= signer.not_after
        if may_be and (other := self._build(signer, _linked(signer, chain), at)):
            self._keep(key, (other, *known))
            return other
        return known[0] if known else None

    def _keep(self, key: ChainKey, paths: tuple[Path, ...]) -> tuple[Path, ...]:
        if len(self._known) >= CACHED_SIGNERS:
            self._known.clear()
        self._known[key] = paths
        return paths

    def _find(self, signer: Certificate, chain: tuple[Certificate, ...], at: datetime) -> tuple[Path, ...]:
        """Try *at*, then every moment at which a path can begin: the start of some certificate.

        Building is costly, so strangers are sent away before: a path ends with a certificate that is an anchor
        or was issued by one.
        """
        chain = _linked(signer, chain)
        if not any(c in self.certificates or any(a.issued(c) for a in self.certificates) for c in (signer, *chain)):
            return ()
        starts = {c.not_before for c in (signer, *chain, *self.certificates)}
        moments = [at, *sorted(m for m in starts if signer.not_before <= m <= signer.not_after)]
        for moment in moments:
            if path := self._build(signer, chain, moment):
                return (path,)
        return ()

    def _build(self, signer: Certificate, chain: tuple[Certificate, ...], at: datetime) -> Path | None:
        assert self._store is not None  # path() has asked
        verifier = (
            PolicyBuilder()
            .store(self._store)
            .time(at.astimezone(UTC).replace(tzinfo=None, microsecond=0))
            .max_chain_depth(_MAX_DEPTH)
            .extension_policies(ca_policy=_CA_POLICY, ee_policy=_SIGNER_POLICY)
            .build_client_verifier()
        )
        try:
            found = verifier.verify(signer.x509, [c.x509 for c in chain]).chain
        except (VerificationError, *UNREADABLE):
            return None
        by_certificate = {c.x509: c for c in (signer, *chain, *self.certificates)}
        certificates = tuple(by_certificate[c] for c in found)
        if not all(_strong(c) for c in certificates[1:]):
            return None
        return Path(certificates, max(c.not_before for c in certificates), min(c.not_after for c in certificates))

    def breaks(self, signer: Certificate, chain: tuple[Certificate, ...]) -> Certificate | None:
        """The first certificate of the chain that nobody vouches for; None if the chain is sound.

        Each must be an anchor, or issued by the next one, by an anchor, or by itself: an unsigned list that may
        hold anything would be a place where changes go unseen.
        """
        key = chain_key(signer, chain)
        if key not in self._breaks:
            if len(self._breaks) >= CACHED_SIGNERS:
                self._breaks.clear()
            self._breaks[key] = self._first_break(signer, chain)
        return self._breaks[key]

    def _first_break(self, signer: Certificate, chain: tuple[Certificate, ...]) -> Certificate | None:
        for number, certificate in enumerate(chain):
            above = chain[number + 1 : number + 2]
            vouching = (*above, *self.certificates, certificate)
            if certificate not in self.certificates and not any(c.issued(certificate) for c in vouching):
                return certificate
            below = chain[number - 1] if number else signer
            if not certificate.issued(below):
                return certificate
        return None


def _linked(signer: Certificate, chain: tuple[Certificate, ...]) -> tuple[Certificate, ...]:
    """The part of *chain* in which each certificate issued the one before it: the rest can be on no path."""
    below = signer
    for number, certificate in enumerate(chain):
        if not certificate.issued(below):
            return chain[:number]
        below = certificate
    return chain


def _strong(authority: Certificate) -> bool:
    key = authority.x509.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= MIN_RSA_BITS
    return isinstance(key, ec.EllipticCurvePublicKey)
