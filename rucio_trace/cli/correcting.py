"""What `obsolete` and `revoke` share: the store's products, who signs, and Rucio that shows it."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from rucio_trace.cli import settings_of, spool_folder
from rucio_trace.cli.product import Believed, believed
from rucio_trace.cli.rucio import show_in_rucio
from rucio_trace.cli.signing import Voices
from rucio_trace.cli.terminal import json_line, printable, say
from rucio_trace.configured import load_trust, open_store
from rucio_trace.corrections import withdraw
from rucio_trace.errors import ConfigurationError, Refuted, StorageError
from rucio_trace.history import history_of
from rucio_trace.status import speaker
from rucio_trace.store import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rucio_trace.config import Settings
    from rucio_trace.corrections import Correction
    from rucio_trace.history import History
    from rucio_trace.identity import Trust
    from rucio_trace.store import Registration, Stored, TraceStore
    from rucio_trace.trace import ProductKey

__all__ = ["Desk", "KeptBack", "NotRegistered", "NotYours", "desk"]


class NotRegistered(Refuted):
    """The store did not take it."""

    def __init__(self, correction: Correction, answer: Registration) -> None:
        found = f"{answer.outcome}: {answer.reason}"
        super().__init__(f"{correction.event} of {correction.name}", expected="that the store takes it", found=found)


class KeptBack(StorageError):
    """The trace service is away: what was signed waits on this machine."""

    def __init__(self, answer: Registration) -> None:
        hint = "it is registered by the next command that registers, or by `rucio-trace store deliver`"
        super().__init__(
            f"trace {answer.id}", expected="that the service takes it", found=str(answer.reason), hint=hint
        )


class NotYours(Refuted):
    """What is to be taken back was said by others."""

    def __init__(self, standing: Sequence[Stored]) -> None:
        found = ", ".join(f"{stored.id} by {speaker(stored.trace)}" for stored in standing)
        hint = "`rucio-trace revoke ID` withdraws it, where the scope's rights allow that"
        super().__init__("what stands", expected="a trace signed by a key at hand", found=found, hint=hint)


@dataclass(frozen=True, slots=True)
class Desk:
    """An open store, those who are trusted, and those who may be meant to speak."""

    settings: Settings
    store: TraceStore
    trust: Trust
    voices: Voices
    dry_run: bool

    def believed(self, history: Sequence[Stored]) -> tuple[Believed, History]:
        """What of *history* counts, and what that amounts to."""
        stale = self.settings.trust.allow_stale_crl
        found = believed(history, self.trust, own_store=self.store.own, allow_stale_crl=stale)
        return found, history_of([stored.trace for stored in found.counting], speaker)

    def say(self, corrections: Sequence[Correction]) -> None:
        """Sign and register *corrections*, none of them where no key may say one; print their ids; show it in Rucio.

        Raises:
            NobodyMay: nothing was registered.
            NotRegistered: the store did not take one of them.
            KeptBack: the trace service is away; they are registered later.
        """
        now, stale = datetime.now(UTC), self.settings.trust.allow_stale_crl
        traces = [self.voices.sign(c, self.trust, now, allow_stale_crl=stale) for c in corrections]
        if self.dry_run:
            for trace in traces:
                json_line(json.loads(trace.message))
            say("a dry run: nothing was registered; what is registered has an id and a salt of its own")
            return
        answers = self.store.register(traces, trust=self.trust, allow_stale_crl=stale)
        for correction, answer in zip(corrections, answers, strict=True):
            if answer.outcome not in (Outcome.STORED, Outcome.KNOWN) and answer.kept_in is None:
                raise NotRegistered(correction, answer)
            click.echo(answer.id)
            if answer.kept_in is None:
                say(f"registered: {correction.event} of {printable(correction.name)}")
        if kept := [answer for answer in answers if answer.kept_in is not None]:
            raise KeptBack(kept[0])
        products = {c.product for c in corrections if c.product is not None}
        products.update(*(self.store.products_of_batch(c.about) for c in corrections))
        show_in_rucio(self.settings, self.store, self.trust, sorted(products))

    def take_back(
        self, product: ProductKey | None, history: History, said: Sequence[Stored], reason: str | None
    ) -> bool:
        """Withdraw those of *said*, which stand, that a key at hand signed; returns whether none of them stands now.

        Raises:
            NotYours: they are all the word of others.
        """
        own = [stored for stored in said if self.voices.own(stored.trace)]
        others = [stored for stored in said if stored not in own]
        if not own:
            raise NotYours(others)
        self.say([withdraw(stored.trace, product, history, reason) for stored in own])
        for stored in others:
            say(f"{stored.id} by {printable(speaker(stored.trace))} still stands; `rucio-trace revoke` withdraws it")
        return not others


@contextmanager
def desk(ctx: click.Context, options: dict[str, Any]) -> Iterator[Desk]:
    """What the settings and the options of `signing_options` and `--dry-run` stand for.

    Raises:
        ConfigurationError: nobody is trusted, there is no key or no store.
    """
    settings = settings_of(ctx)
    trust = load_trust(settings.trust)
    if trust is None:
        where = settings.file or "no settings file found"
        raise ConfigurationError(f"{where}: trust", expected="federation or anchors", found="neither")
    voices = Voices.of(settings, options)
    with open_store(settings, migrate=False, spool=spool_folder()) as store:
        yield Desk(settings, store, trust, voices, options["dry_run"])
