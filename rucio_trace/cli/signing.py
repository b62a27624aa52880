"""Who signs what a command says: options and settings, and whose word the federation takes for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rucio_trace.checking import Refused, check_trace
from rucio_trace.configured import load_signer
from rucio_trace.errors import ConfigurationError, Refuted
from rucio_trace.status import speaker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from rucio_trace.config import Settings
    from rucio_trace.corrections import Correction
    from rucio_trace.envelope import Signer, Trace
    from rucio_trace.identity import Trust

__all__ = ["NobodyMay", "Voice", "Voices", "signing_options"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def signing_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that name a key other than those of the settings."""
    for option in (
        click.option("--site", metavar="NAME", help="Who speaks; else the settings', else the certificate's subject."),
        click.option("--key-password-file", type=_FILE, metavar="FILE", help="Holds the password of the key."),
        click.option("--cert", type=_FILE, metavar="PEM", help="Its certificate, then intermediates."),
        click.option("--key", type=_FILE, metavar="PEM", help="The key; else that of [producer] or [recorder]."),
    ):
        command = option(command)
    return command


class NobodyMay(Refuted):
    """No key at hand may say it; nothing was registered."""

    def __init__(self, correction: Correction, reasons: Sequence[str]) -> None:
        right = correction.event.lower()
        super().__init__(
            f"{correction.event} of {correction.name}",
            expected=f"a key with the right to {correction.event} there",
            found="; ".join(reasons),
            hint=f"{'the RSEs in `rses`' if correction.about.batch else f'the scopes in `{right}`'}"
            " of the federation file give it",
        )


@dataclass(frozen=True, slots=True)
class Voice:
    """A key, and the name it speaks under."""

    signer: Signer
    site: str

    @property
    def speaker(self) -> str:
        """As `status.speaker` names it."""
        return " ".join((self.signer.subject, *sorted(self.signer.uris)))


@dataclass(frozen=True, slots=True)
class Voices:
    """Those who may be meant to speak, in order; `faults` are keys of the settings that could not be used."""

    voices: Sequence[Voice]
    faults: Sequence[str]

    @classmethod
    def of(cls, settings: Settings, options: dict[str, Any]) -> Voices:
        """The key of the command line alone, else those of `[producer]` and `[recorder]`.

        Raises:
            ConfigurationError: there is none that can be used.
        """
        if options["key"] or options["cert"]:
            if not (options["key"] and options["cert"]):
                raise click.UsageError("--key and --cert go together")
            signer = load_signer(options["key"], options["cert"], options["key_password_file"])
            return cls([Voice(signer, options["site"] or settings.producer.site or signer.subject)], [])
        voices, faults = [], []
        for section in (settings.producer, settings.recorder):
            if section.key is not None and section.certificate is not None:
                try:
                    signer = load_signer(section.key, section.certificate, section.key_password_file)
                except ConfigurationError as error:  # the recorder's key is for the recorder's user to read
                    faults.append(str(error))
                else:
                    voices.append(Voice(signer, options["site"] or section.site or signer.subject))
        if not voices:
            raise ConfigurationError(
                "a key to sign with",
                expected="--key and --cert, or key and certificate under [producer] or [recorder]",
                found="; ".join(faults) or "none",
            )
        return cls(voices, faults)

    def own(self, trace: Trace) -> bool:
        """Whether one of them signed *trace*, be it with an earlier certificate."""
        return speaker(trace) in {voice.speaker for voice in self.voices}

    def sign(self, correction: Correction, trust: Trust, now: datetime, *, allow_stale_crl: bool) -> Trace:
        """*correction*, signed by the first who may say it.

        Raises:
            NobodyMay: with what each of them lacks.
        """
        reasons = list(self.faults)
        for voice in self.voices:
            if correction.speaker not in (None, voice.speaker):
                reasons.append(f"{voice.signer.subject} is not who said it")
                continue
            try:
                trace = correction.signed(voice.signer, voice.site, now)
                check_trace(trace, trust, now, allow_stale_crl=allow_stale_crl)
            except Refused as error:
                reasons.append(f"{voice.signer.subject}: {'; '.join(fault.told for fault in error.faults)}")
            except Refuted as error:
                reasons.append(str(error))
            else:
                return trace
        raise NobodyMay(correction, reasons)
