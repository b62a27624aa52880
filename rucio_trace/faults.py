"""What is wrong with a trace or a file, as values: each fault names what, expected, found.

The family a fault belongs to decides what remains to be said when no trace is left:
`Expired`, `Untrusted`, `Altered`, or `Uncertain` (docs/format.md, section 7). Faults of the file
itself (`FileFault`) and remarks on accepted traces (`Remark`) never drop a trace.
"""

from dataclasses import dataclass
from typing import ClassVar

from rucio_trace.errors import shown

__all__ = [
    "Altered",
    "AmbiguousName",
    "BadSignature",
    "CaSigned",
    "CertificateRevoked",
    "CertificateUnreadable",
    "ChainBroken",
    "ContentOf",
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
    "NoContents",
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
    """One thing that is not as it should be. `trace` is the id of the trace, None for the file itself.

    `wording` is how a class tells its three parts to people.
    """

    wording: ClassVar[str] = "{what} should be {expected}, found {found}"

    what: str
    expected: str
    found: str
    trace: str | None = None

    @property
    def kind(self) -> str:
        """The fault's class name: stable, for machines."""
        return type(self).__name__

    def __str__(self) -> str:
        return f"trace {shown(self.trace)}: {self.told}" if self.trace else self.told

    @property
    def told(self) -> str:
        """The fault in one line, without the trace."""
        return self.wording.format(what=shown(self.what), expected=shown(self.expected), found=shown(self.found))

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

    wording = "{what} beside the signed text should be {expected}, found {found}"


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

    wording = "it is not signed"


class UnknownIssuer(Untrusted):
    """No path from the certificate to an anchor."""

    wording = "no anchor vouches for {found}"


class ChainBroken(Untrusted):
    """A certificate in the chain is not vouched for by the next one."""

    wording = "the chain should have {expected}, which {found} breaks"


class CaSigned(Untrusted):
    """A certificate authority's certificate signed a trace."""


class NoDigitalSignature(Untrusted):
    """The certificate was not issued for signing."""

    wording = "the certificate of {found} should have {expected}"


class WeakKey(Untrusted):
    """The key is of a kind or size we do not accept."""


class OutsidePattern(Untrusted):
    """The certificate is none of its authority's member's."""

    wording = "the signer should be {expected}, found {found}"


class OutsideRights(Untrusted):
    """The signer may not say this."""

    wording = "{what} has not {expected}"


class CertificateRevoked(Untrusted):
    """The authority has withdrawn the certificate."""

    wording = "the certificate of {what} is {found}"


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

    wording = "there should be {expected}, found {found}"


class NewerSchema(Uncertain):
    """Made by a newer version."""


class Withdrawn(Fault):
    """A trusted REVOKE withdrew the trace."""

    wording = "this {what} was {found}"


class Remark(Fault):
    """True, and told, but it decides nothing about the file in hand."""


class Contradiction(Remark):
    """The trace speaks of other digests than the product's origin."""

    wording = "it names other bytes than the origin: {found}, not {expected}"


class FileFault(Fault):
    """The file in hand is not what it should be."""

    def __str__(self) -> str:
        return f"{self.told} (says trace {shown(self.trace)})" if self.trace else self.told


class DifferentSize(FileFault):
    """The file's size is not the origin's."""


class DifferentDigest(FileFault):
    """The file's digest is not the origin's."""


class ContentUnderOtherName(FileFault):
    """The content of one product under the name of another."""

    wording = "it is the content {found} under the name {expected}"


class ContentOf(Remark):
    """The files are those of a signed archive, in another packaging."""

    wording = "it is the content of {found}"


class NoContents(FileFault):
    """The archive of this name signs no members, or by another algorithm: a folder cannot be compared with it."""

    wording = "{expected} would decide, and are not signed for {found}"


class MissingDigest(FileFault):
    """The file's digest in the trace's algorithm was not computed."""

    wording = "its {expected} would decide, but only {found} was computed"


class AmbiguousName(FileFault):
    """Several products bear the file's name and none its digest."""

    wording = "it bears the name, but not the digest, of {found}"


class SeveralProducts(FileFault):
    """Several products have these bytes and their verdicts differ."""

    wording = "it has the bytes of {found}"


class DifferentContent(FileFault):
    """A member of the archive is not the origin's."""


class WithdrawnOrigin(FileFault):
    """The file is what a withdrawn CREATE said it should be."""

    wording = "the CREATE that names its bytes was withdrawn"


class MarkedObsolete(Remark):
    """The product should not be used any more."""

    wording = "it should not be used any more: {found}"


class NewerGeneration(Remark):
    """The product's name has been given to newer content since."""

    wording = "its name was given to newer content: generation {expected}, this is {found}"


class NobodyVouches(FileFault):
    """Traces of the product were accepted, but none says that its bytes are good."""

    wording = "no CREATE, COPY or VERIFY that counts vouches for {found}"


class DisputedOrigin(FileFault):
    """Trusted traces of one product disagree about its digests."""

    wording = "the origin is disputed: it has {found}"
