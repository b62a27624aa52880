"""`rucio-trace verify`: the verdict on files."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rucio_trace.archive import ArchiveLimits, digest_archive, is_archive_name
from rucio_trace.cli import settings_of
from rucio_trace.cli.files import progress_over
from rucio_trace.cli.terminal import say
from rucio_trace.cli.verdicts import NoTraces, Outcome, Unreadable, show_json, show_text
from rucio_trace.config import Trust as TrustSettings
from rucio_trace.configured import load_trust, open_store, read_file
from rucio_trace.digest import FileChanged, digest_file
from rucio_trace.envelope import parse_traces
from rucio_trace.errors import ConfigurationError, Malformed, TraceabilityError
from rucio_trace.faults import DifferentContent, Fault
from rucio_trace.folder import digest_content
from rucio_trace.identity import Trust
from rucio_trace.product_digest import Undefined, product_digest, wrapped_names
from rucio_trace.statement import STRONG
from rucio_trace.strictjson import MAX_BYTES
from rucio_trace.verify import (
    EXIT_CODES,
    Candidate,
    CheckedEvidence,
    Evidence,
    Judgement,
    Verdict,
    algorithms_for,
    check_evidence,
    worst,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rucio_trace.envelope import Trace
    from rucio_trace.store import TraceStore

__all__ = ["FileJudge", "load_trusted", "outcome_of", "trust_options", "trust_settings", "verify"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_STORE_ALGORITHMS = ("BLAKE3",)  # what recorders sign; the traces found tell of others


@dataclass(frozen=True, slots=True)
class FileJudge:
    """Everything that files are judged by: traces in hand, or the store."""

    trust: Trust
    now: datetime
    did: str | None
    allow_stale_crl: bool
    progress: Callable[[int], object]
    limits: ArchiveLimits
    checked: CheckedEvidence | None
    store: TraceStore | None

    def judge(self, path: Path) -> Judgement:
        """The verdict on one file, whose digests are computed as the traces found ask for them."""
        name = path.absolute().name
        if path.is_dir():
            return self._judge_content(path, Candidate(file=str(path), base_name=name, size=0, hashes={}, did=self.did))
        candidate = Candidate(file=str(path), base_name=name, size=0, hashes={}, did=self.did)
        if self.checked is not None:
            known = [a.trace for a in self.checked.accepted] + [r.trace for r in self.checked.refused]
            wanted = algorithms_for(known)
            candidate = self._measured(path, candidate, wanted or _STORE_ALGORITHMS)
            judgement = self._settled(path, candidate, self.checked)
            return self._by_content(path, candidate, judgement)
        judgement, candidate = self._looked_up(path, self._measured(path, candidate, _STORE_ALGORITHMS))
        judgement = self._by_content(path, candidate, judgement)
        if judgement.verdict is Verdict.UNKNOWN:  # its product may be known by another digest, under another name
            judgement, _ = self._looked_up(path, self._measured(path, candidate, STRONG))
        return judgement

    def _by_content(self, path: Path, candidate: Candidate, judgement: Judgement) -> Judgement:
        """*judgement*, or of an archive that nobody knows, what is known of its content in another packaging."""
        if judgement.verdict is not Verdict.UNKNOWN or self.did is not None or not is_archive_name(path.name):
            return judgement
        try:
            found = self._judge_content(path, candidate)
        except TraceabilityError:  # an archive that cannot be unpacked has no content
            return judgement
        return judgement if found.verdict is Verdict.UNKNOWN else found

    def _judge_content(self, path: Path, candidate: Candidate) -> Judgement:
        """The verdict by the product digest of a folder, or of an archive's members.

        Raises:
            TraceabilityError, OSError: it has none, or could not be read.
        """
        members = digest_content(path, ["BLAKE3"], limits=self.limits, progress=self.progress)
        contents = {member.path: member.hashes["BLAKE3"] for member in members}
        digest = product_digest(contents.items())
        candidate = replace(candidate, contents=contents, contents_algorithm="BLAKE3", product_digest=digest)
        if self.checked is not None:
            return self.checked.judge(candidate)
        assert self.store is not None
        names = wrapped_names(candidate.base_name)
        evidence = self.store.candidates(candidate.hashes, names, self.did, product_digest=digest)
        return check_evidence(evidence, self.trust, self.now, allow_stale_crl=self.allow_stale_crl).judge(candidate)

    def _looked_up(self, path: Path, candidate: Candidate) -> tuple[Judgement, Candidate]:
        """The verdict by what the store knows of the digests that *candidate* has, and what else was measured."""
        assert self.store is not None
        evidence = self.store.candidates(candidate.hashes, candidate.base_name, self.did)
        candidate = self._measured(path, candidate, algorithms_for(e.trace for e in evidence))
        checked = check_evidence(evidence, self.trust, self.now, allow_stale_crl=self.allow_stale_crl)
        return self._settled(path, candidate, checked), candidate

    def _settled(self, path: Path, candidate: Candidate, checked: CheckedEvidence) -> Judgement:
        judgement = checked.judge(candidate)
        if judgement.missing:
            candidate = self._measured(path, candidate, judgement.missing)
            judgement = checked.judge(candidate)
        origin = judgement.origin.statement if judgement.origin else None
        if judgement.verdict is not Verdict.TAMPERED or origin is None or not origin.contents:
            return judgement
        # Which members differ says more to people than the archive's digest.
        algorithm = origin.hash_algorithm or "BLAKE3"
        try:
            members = digest_archive(path, [algorithm], limits=self.limits).members or ()
        except TraceabilityError as error:
            fault = DifferentContent(error.subject, error.expected, error.found)
            return replace(judgement, faults=(*judgement.faults, fault))
        contents = {member.path: member.hashes[algorithm] for member in members}
        candidate = replace(candidate, contents=contents, contents_algorithm=algorithm)
        if algorithm == "BLAKE3":
            with suppress(Undefined):  # the members are named all the same
                candidate = replace(candidate, product_digest=product_digest(contents.items()))
        return checked.judge(candidate)

    def _measured(self, path: Path, candidate: Candidate, algorithms: Iterable[str]) -> Candidate:
        """*candidate* with the digests it lacks."""
        lacking = [algorithm for algorithm in algorithms if algorithm not in candidate.hashes]
        if not lacking:
            return candidate
        found = digest_file(path, lacking, progress=self.progress)
        if candidate.hashes and candidate.size is not None and candidate.size != found.size:
            raise FileChanged(path, candidate.size, found.size)
        return replace(candidate, size=found.size, hashes={**candidate.hashes, **found.hashes})


def trust_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say whom to believe, instead of the settings: see `load_trusted`."""
    for option in reversed(_TRUST_OPTIONS):
        command = option(command)
    return command


_TRUST_OPTIONS = (
    click.option(
        "--anchors",
        type=click.Path(exists=True, path_type=Path),
        multiple=True,
        metavar="PEM|DIR",
        help="Believe any signer below these certificates.",
    ),
    click.option("--federation", type=_FILE, metavar="FILE", help="Believe its members, each within its rights."),
    click.option("--crl", "crls", type=_FILE, multiple=True, metavar="PEM", help="Revocation lists, with --anchors."),
    click.option("--allow-stale-crl", is_flag=True, help="Use revocation lists past their date."),
)


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--trace", "traces", type=_FILE, multiple=True, metavar="FILE", help="Judge by these traces alone.")
@click.option("--did", metavar="SCOPE:NAME", help="Hold the file against this product, whatever its own name.")
@trust_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line per file.")
@click.pass_context
def verify(ctx: click.Context, /, files: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Tell genuine files from tampered ones.

    A FILE may be a folder: it is genuine if it is the content of an archive whose members were signed.
    Without --trace the traces come from the store in the settings; without --anchors and --federation
    those of the settings are believed. Ends with 0 if all files are genuine, 1 if any is not, else 3 if
    it could not be found out of any, else 4 if any is obsolete.

    \b
    Example:
      rucio-trace verify product.SAFE.zip --trace product.trace.json --anchors federation-ca.pem
    """
    now = datetime.now(UTC)
    verdicts: list[Verdict] = []
    with ExitStack() as stack:
        progress = stack.enter_context(progress_over(files))
        judge = _judge(ctx, options, now, progress, stack)
        for path in files:
            outcome = outcome_of(path, judge, now)
            verdicts.append(outcome.verdict)
            (show_json if as_json else show_text)(outcome)
    ctx.exit(EXIT_CODES[worst(verdicts)])


def _judge(
    ctx: click.Context, options: dict[str, Any], now: datetime, progress: Callable[[int], object], stack: ExitStack
) -> FileJudge | Fault:
    """Whom to ask, or why there is nobody."""
    settings = settings_of(ctx)
    traces: tuple[Path, ...] = options["traces"]
    if not traces and not settings.store.named:
        return NoTraces("traces", "give --trace FILE, or set url or service under [store] in the settings", "none")
    trust, stale = load_trusted(ctx, options)
    checked = store = None
    try:
        if traces:
            evidence = [Evidence(trace) for file in traces for trace in _traces_in(file)]
            checked = check_evidence(evidence, trust, now, allow_stale_crl=stale)
        else:
            store = stack.enter_context(open_store(settings, migrate=False))
    except ConfigurationError:
        raise
    except TraceabilityError as error:
        return _unreadable(error)
    return FileJudge(
        trust, now, options["did"], stale, progress, ArchiveLimits(**asdict(settings.limits)), checked, store
    )


def load_trusted(ctx: click.Context, options: dict[str, Any]) -> tuple[Trust, bool]:
    """Whom to believe by `trust_options`, and whether stale revocation lists will do."""
    settings = settings_of(ctx)
    trust = load_trust(trust_settings(settings.trust, options))
    if trust is None:
        say("nobody is trusted: give --anchors or --federation, or set them under [trust] in the settings")
        trust = Trust(())
    return trust, options["allow_stale_crl"] or settings.trust.allow_stale_crl


def _traces_in(file: Path) -> list[Trace]:
    try:
        return parse_traces(read_file(file, most=MAX_BYTES + 1))
    except Malformed as error:
        raise Malformed(f"{file}, {error.subject}", expected=error.expected, found=error.found) from None


def trust_settings(configured: TrustSettings, options: dict[str, Any]) -> TrustSettings:
    """What the command line says instead of the settings."""
    if options["federation"] and options["anchors"]:
        raise click.UsageError("give --anchors or --federation, not both")
    if options["federation"] and options["crls"]:
        raise click.UsageError("--crl belongs to --anchors; a federation file names its own lists")
    if options["federation"]:
        return TrustSettings(federation=options["federation"])
    if options["anchors"]:
        return TrustSettings(anchors=options["anchors"], crls=options["crls"])
    return replace(configured, crls=(*configured.crls, *options["crls"]))


def outcome_of(path: Path, judge: FileJudge | Fault, now: datetime) -> Outcome:
    """The verdict on the file at *path*, or why there is none."""
    try:
        if isinstance(judge, Fault):
            path.stat()
            verdict = Verdict.UNKNOWN if isinstance(judge, NoTraces) else Verdict.UNDECIDED
            return Outcome(path, verdict, (judge,), now)
        judgement = judge.judge(path)
    except ConfigurationError:
        raise
    except OSError as error:
        fault = Unreadable(str(path), "a readable file", error.strerror or str(error))
        return Outcome(path, Verdict.UNDECIDED, (fault,), now)
    except TraceabilityError as error:
        return Outcome(path, Verdict.UNDECIDED, (_unreadable(error),), now)
    return Outcome(path, judgement.verdict, judgement.faults, now, judgement)


def _unreadable(error: TraceabilityError) -> Unreadable:
    return Unreadable(error.subject, error.expected, f"{error.found} ({error.hint})" if error.hint else error.found)
