"""OBSOLETE and REVOKE of what is in a store: what they say, before anybody signs it.

Neither needs the file at hand: they repeat the digests that were signed of it (docs/format.md, 5.4). Whether somebody
may say so is asked of `check_trace`. Pure; time is an argument.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from rucio_trace.envelope import Signer, Trace, sign
from rucio_trace.errors import Refuted
from rucio_trace.history import History
from rucio_trace.statement import (
    STRONG,
    Event,
    ProductKey,
    Statement,
    base_name,
    format_time,
    new_event_id,
    new_salt,
)
from rucio_trace.status import speaker

__all__ = ["Correction", "NoOrigin", "discourage", "withdraw"]


# What is repeated of the statement that names the bytes; a file in no Rucio has nothing of a batch.
_OF_FILE = ("hash", "size", "hash_algorithm", "hashes", "members")
_OF_BATCH = ("rucio", "vo", "rse", "batch")


class NoOrigin(Refuted):
    """Nothing can be said of a product as long as nobody, or more than one, says what its bytes are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """To be said of `product`, or (None) of a file in no Rucio or a batch's list.

    `about` names the same bytes by a strong digest.
    `speaker`, if given, is who alone may say it: outside Rucio a member withdraws only its own traces.
    """

    event: Event
    product: ProductKey | None
    about: Statement
    reason: str | None
    replaced_by: str | None = None
    revokes: str | None = None
    speaker: str | None = None

    @property
    def name(self) -> str:
        return self.product.did if self.product else self.about.name

    def signed(self, signer: Signer, site: str, now: datetime) -> Trace:
        """The trace that says it; a new one at every call: sign once, and repeat what was signed.

        Raises:
            Malformed: a text is empty, too long or holds a NUL.
            Refuted: the signer's certificate is not valid at *now*.
        """
        repeated = _OF_FILE if self.product else (*_OF_FILE, *_OF_BATCH)
        statement = Statement(
            **{name: getattr(self.about, name) for name in repeated},
            **(self.product.fields() if self.product else {}),
            name=base_name(self.product.name) if self.product else self.about.name,
            event=self.event,
            event_id=new_event_id(),
            site=site,
            signer=signer.fingerprint,
            time=format_time(now),
            obsolescence=self.reason,
            replaced_by=self.replaced_by,
            revokes=self.revokes,
            salt=new_salt(),
        )
        return sign(statement, signer)


def discourage(product: ProductKey, history: History, reason: str, replaced_by: str | None = None) -> Correction:
    """The OBSOLETE of *product*, whose accepted traces amount to *history*.

    Raises:
        NoOrigin: its bytes are in dispute, withdrawn, or were never told.
    """
    if history.origin is None:
        rivals = ", ".join(trace.id for trace in history.rivals)
        found = f"CREATEs that contradict each other: {rivals}" if rivals else "none that stands"
        hint = "`rucio-trace revoke` withdraws the wrong one" if rivals else ""
        raise NoOrigin(product.did, expected="one word on what its bytes are", found=found, hint=hint)
    about = _strong([history.origin, *history.agreeing], product.did)
    return Correction(event=Event.OBSOLETE, product=product, about=about, reason=reason, replaced_by=replaced_by)


def withdraw(target: Trace, product: ProductKey | None, history: History, reason: str | None) -> Correction:
    """The REVOKE of *target*, which speaks of *product* or joined it; *history* is the product's.

    Raises:
        NoOrigin: neither the target nor the product's origin names the bytes by a strong digest.
    """
    others = [history.origin, *history.agreeing] if history.origin else []
    about = _strong([target, *others], f"trace {target.id}")
    return Correction(
        event=Event.REVOKE,
        product=product,
        about=about,
        reason=reason,
        revokes=target.id,
        speaker=speaker(target) if product is None else None,
    )


def _strong(traces: Iterable[Trace], name: str) -> Statement:
    for trace in traces:
        if trace.statement.hash_algorithm in STRONG:  # a trace of the Traceability Service does not sign its own
            return trace.statement
    raise NoOrigin(name, expected=f"a digest by {', '.join(STRONG)}", found="none")
