"""What is wrong with a trace or a file, as values: each fault names what, expected, found.

The family a fault belongs to decides what remains to be said when no trace is left:
`Expired`, `Untrusted`, `Altered`, or `Uncertain` (docs/format.md, section 7). Faults of the file
itself (`FileFault`) and remarks on accepted traces (`Remark`) never drop a trace.
"""

from dataclasses import dataclass

from rucio_trace.errors import shown

__all__ = [
    "Altered",
    "AmbiguousName",
    "BadSignature",
    "CaSigned",
    "CertificateRevoked",
    "CertificateUnreadable",
    "ChainBroken",
    "ContentUnderOtherName",
    "Contradiction",
    "CrlUnusable",
    "DifferentContent",
    "DifferentDigest",
    "DifferentSize",
    "DisputedOrigin",
    "EnvelopeDiffers",
    "Expired",
    "Fault",
    "FileFault",
    "MarkedObsolete",
    "MessageUnreadable",
    "MissingDigest",
    "NewerGeneration",
    "NewerSchema",
    "NoDigitalSignature",
    "NobodyVouches",
    "NotYetValid",
    "OutsidePattern",
    "OutsideRights",
    "Remark",
    "SeveralProducts",
    "TimeBeforeCertificate",
    "TimeInFuture",
    "Uncertain",
    "UnknownIssuer",
    "Unsigned",
    "Untrusted",
    "WeakKey",
    "Withdrawn",
    "WithdrawnOrigin",
    "WrongAlgorithm",
    "WrongSigner",
]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as it should be. `trace` is the id of the trace, None for the file itself."""

    what: str
    expected: str
    found: str
    trace: str | None = None

    @property
    def kind(self) -> str:
        """The fault's class name: stable, for machines."""
        return type(self).__name__

    def __str__(self) -> str:
        where = f"trace {shown(self.trace)}: " if self.trace else ""
        return f"{where}{shown(self.what)}: expected {shown(self.expected)}, found {shown(self.found)}"

    def as_dict(self) -> dict[str, str | None]:
        return {
            "kind": self.kind,
            "what": self.what,
            "expected": self.expected,
            "found": self.found,
            "trace": self.trace,
        }


class Altered(Fault):
    """The trace itself was changed, or never was one."""


class MessageUnreadable(Altered):
    """The signed text is no statement."""


class CertificateUnreadable(Altered):
    """A certificate beside the signed text cannot be read."""


class EnvelopeDiffers(Altered):
    """A field beside the signed text says something else than the signed text."""


class BadSignature(Altered):
    """The signature does not belong to this text and key."""


class WrongAlgorithm(Altered):
    """The envelope names another algorithm than the key's."""


class WrongSigner(Altered):
    """The statement names another certificate than the one beside it."""


class Untrusted(Fault):
    """Nobody we trust says this."""


class Unsigned(Untrusted):
    """No signature at all."""


class UnknownIssuer(Untrusted):
    """No path from the certificate to an anchor."""


class ChainBroken(Untrusted):
    """A certificate in the chain is not vouched for by the next one."""


class CaSigned(Untrusted):
    """A certificate authority's certificate signed a trace."""


class NoDigitalSignature(Untrusted):
    """The certificate was not issued for signing."""


class WeakKey(Untrusted):
    """The key is of a kind or size we do not accept."""


class OutsidePattern(Untrusted):
    """The certificate is none of its authority's member's."""


class OutsideRights(Untrusted):
    """The signer may not say this."""


class CertificateRevoked(Untrusted):
    """The authority has withdrawn the certificate."""


class TimeInFuture(Untrusted):
    """The statement claims a time that has not come."""


class TimeBeforeCertificate(Untrusted):
    """The statement claims a time before its certificate existed."""


class Expired(Fault):
    """The certificate had run out at the time of judgement."""


class NotYetValid(Untrusted):
    """The certificate was not valid yet at the time of judgement."""


class Uncertain(Fault):
    """Whether the trace counts could not be found out."""


class CrlUnusable(Uncertain):
    """A revocation list that should answer is missing, out of date or broken."""


class NewerSchema(Uncertain):
    """Made by a newer version."""


class Withdrawn(Fault):
    """A trusted REVOKE withdrew the trace."""


class Remark(Fault):
    """True, and told, but it decides nothing about the file in hand."""


class Contradiction(Remark):
    """The trace speaks of other digests than the product's origin."""


class FileFault(Fault):
    """The file in hand is not what it should be."""


class DifferentSize(FileFault):
    """The file's size is not the origin's."""


class DifferentDigest(FileFault):
    """The file's digest is not the origin's."""


class ContentUnderOtherName(FileFault):
    """The content of one product under the name of another."""


class MissingDigest(FileFault):
    """The file's digest in the trace's algorithm was not computed."""


class AmbiguousName(FileFault):
    """Several products bear the file's name and none its digest."""


class SeveralProducts(FileFault):
    """Several products have these bytes and their verdicts differ."""


class DifferentContent(FileFault):
    """A member of the archive is not the origin's."""


class WithdrawnOrigin(FileFault):
    """The file is what a withdrawn CREATE said it should be."""


class MarkedObsolete(Remark):
    """The product should not be used any more."""


class NewerGeneration(Remark):
    """The product's name has been given to newer content since."""


class NobodyVouches(FileFault):
    """Traces of the product were accepted, but none says that its bytes are good."""


class DisputedOrigin(FileFault):
    """Trusted traces of one product disagree about its digests."""
