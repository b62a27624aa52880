"""`rucio-trace download`: what `rucio download` does, and the file is handed over only when it is genuine."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rucio_trace.archive import ArchiveLimits
from rucio_trace.cli import settings_of
from rucio_trace.cli.terminal import printable, say
from rucio_trace.cli.verdicts import show_json, show_text
from rucio_trace.cli.verify import FileJudge, outcome_of, trust_settings
from rucio_trace.configured import load_trust, open_store
from rucio_trace.envelope import parse_traces
from rucio_trace.errors import Malformed
from rucio_trace.history import standing
from rucio_trace.identity import Trust
from rucio_trace.matching import COPERNICUS_ALGORITHMS
from rucio_trace.trace import Event, base_name
from rucio_trace.verify import EXIT_CODES, CheckedEvidence, Evidence, Verdict, check_evidence, worst

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from rucio_trace.cli.verdicts import Outcome
    from rucio_trace.envelope import Trace
    from rucio_trace.store import TraceStore

__all__ = ["download"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_SPEED_KBPS = 500  # as in `rucio download`
_SETTLES_WITHIN = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class _Judge:
    """By whose word, and by what, downloaded files are judged."""

    client: Any
    store: TraceStore | None
    trust: Trust
    limits: ArchiveLimits
    allow_stale_crl: bool
    now: datetime

    def outcome(self, did: str, path: Path) -> Outcome:
        """The verdict by the store; where that knows nothing, by the word of the producer that Rucio keeps.

        What the store knows to be said against the file counts beside that word.
        """
        scope, _, name = did.partition(":")
        metadata = self.client.get_metadata(scope, name, plugin="ALL")
        if known := self._known(did, path.name, metadata):
            checked = check_evidence(known, self.trust, self.now, allow_stale_crl=self.allow_stale_crl)
            outcome = outcome_of(path, self._file_judge(did, checked), self.now)
            if outcome.verdict is not Verdict.UNKNOWN or _is_obsolete(checked):
                return outcome
        origin = _origin(did, metadata.get("trace_origin"))
        checked = check_evidence(
            [*map(Evidence, origin), *self._said_outside(origin)],
            self.trust,
            self.now,
            allow_stale_crl=self.allow_stale_crl,
            scope=scope,
        )
        return outcome_of(path, self._file_judge(None, checked), self.now)

    def _known(self, did: str, base_name: str, metadata: Mapping[str, Any]) -> list[Evidence]:
        """What the store knows of the product that bears this DID now: nothing of an older generation is said of it."""
        found = [] if self.store is None else self.store.candidates({}, base_name, did)
        created = _second(metadata["created_at"])
        living = [
            e for e in found if (p := e.trace.statement.product) is None or p.generation[: len(created)] == created
        ]
        return living if any(e.trace.statement.product is not None for e in living) else []

    def _said_outside(self, origin: Sequence[Trace]) -> list[Evidence]:
        """What withdraws or warns of the producer's word, said of a file in no Rucio as that is."""
        if self.store is None:
            return []
        found = []
        for s in (trace.statement for trace in origin):
            digests = s.digests or dict.fromkeys(COPERNICUS_ALGORITHMS, s.hash)
            found += [e for e in self.store.candidates(digests, s.name) if e.trace.statement.product is None]
        return [e for e in found if e.trace.statement.event in (Event.OBSOLETE, Event.REVOKE)]

    def _file_judge(self, did: str | None, checked: CheckedEvidence) -> FileJudge:
        return FileJudge(self.trust, self.now, did, self.allow_stale_crl, lambda _: None, self.limits, checked, None)


def _second(created_at: Any) -> str:
    """Rucio's `created_at` as generations are written (RFC 3339), as far as REST tells it."""
    moment = created_at if isinstance(created_at, datetime) else parsedate_to_datetime(created_at)
    return f"{moment:%FT%T}"


def _is_obsolete(checked: CheckedEvidence) -> bool:
    """Whether an OBSOLETE stands for a product of whose bytes the store knows nothing."""
    kept, _ = standing(accepted.trace for accepted in checked.accepted)
    return any(trace.statement.event is Event.OBSOLETE for trace in kept)


def _origin(did: str, text: str | None) -> list[Trace]:
    """What Rucio gives as `trace_origin`; no evidence unless it speaks of a file of this name, in no Rucio yet.

    A trace names no DID: who keeps the database could show the word on another file, with that file's bytes.
    """
    try:
        traces = parse_traces(text.encode()) if text else []
    except (Malformed, ValueError):
        traces = []
    kept = []
    for trace in traces:
        s = trace.statement
        if s.event is Event.CREATE and s.product is None and s.name == base_name(did.partition(":")[2]):
            kept.append(trace)
        else:
            say(f"rucio-trace: {printable(did)}: its trace_origin speaks of {printable(s.name)}")
    return kept


@click.command()
@click.argument("dids", metavar="SCOPE:NAME...", nargs=-1, required=True)
@click.option(
    "--dir", "folder", type=click.Path(file_okay=False, path_type=Path), default=".", help="Where to put the files."
)
@click.option(
    "--allow",
    multiple=True,
    type=click.Choice([str(verdict) for verdict in Verdict if verdict is not Verdict.GENUINE]),
    help="Hand a file over with this verdict too.",
)
@click.option("--scope", metavar="NAME", help="The scope of names that are given without one.")
@click.option("--rses", "--rse-exp", "rses", metavar="EXPRESSION", help="Where files may come from.")
@click.option("--impl", metavar="NAME", help="The protocol implementation, as xrootd or gfal.NoRename.")
@click.option("--protocol", metavar="SCHEME", help="The protocol, as root or davs.")
@click.option("--nrandom", type=int, metavar="N", help="Only N files of a dataset, at random.")
@click.option("--ndownloader", type=int, default=3, show_default=True, metavar="N", help="So many at once.")
@click.option("--no-subdir", is_flag=True, help="Make no folder for the scope.")
@click.option("--allow-tape", is_flag=True, help="Tape may be a source too.")
@click.option("--transfer-timeout", type=float, metavar="SECONDS", help="How long one file may take.")
@click.option("--replica-selection", metavar="NAME", help="How to choose the source, as random or geoip.")
@click.option("--anchors", type=click.Path(exists=True, path_type=Path), multiple=True, metavar="PEM|DIR",
              help="Believe any signer below these certificates.")  # fmt: skip
@click.option("--federation", type=_FILE, metavar="FILE", help="Believe its members, each within its rights.")
@click.option("--crl", "crls", type=_FILE, multiple=True, metavar="PEM", help="Revocation lists, with --anchors.")
@click.option("--allow-stale-crl", is_flag=True, help="Use revocation lists past their date.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line per file.")
@click.pass_context
def download(ctx: click.Context, /, dids: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Download files from Rucio, genuine ones only.

    Takes what `rucio download` takes. A file is judged by the store in the settings or, where that knows nothing of
    it, by the trace its producer gave to Rucio. What is not GENUINE (nor allowed) is not kept. Exit codes are those
    of `verify`.

    \b
    Example:
      rucio-trace download s2:product.SAFE.zip --dir products --federation federation.toml
    """
    from rucio.common.exception import RucioException

    from rucio_trace.cli import transfers
    from rucio_trace.producer.download import ArrivingDownloadClient

    allowed = {Verdict.GENUINE, *map(Verdict, options["allow"])}
    folder: Path = options["folder"].absolute()
    verdicts: list[Verdict] = []
    with ExitStack() as stack:
        try:
            client = transfers.client()
            judge = _judge(ctx, client, options, stack)
            aside = stack.enter_context(_aside(folder))

            def arrived(did: str, came: Mapping[Path, Path]) -> None:
                if not came:
                    say(f"rucio-trace: {printable(did)}: did not come; the reason stands above")
                    verdicts.append(Verdict.UNDECIDED)
                for place, path in came.items():
                    outcome = judge.outcome(did, path)
                    verdicts.append(outcome.verdict)
                    _hand_over(replace(outcome, file=place), path, allowed, as_json)

            downloader = ArrivingDownloadClient(
                client, aside, folder, arrived, logger=transfers.logger(), allow_tape=options["allow_tape"]
            )
            downloader.fetch(_items(dids, options), options["ndownloader"], options["replica_selection"])
        except RucioException as error:
            raise transfers.RucioRefused(error) from error
    ctx.exit(EXIT_CODES[worst(verdicts)])


def _hand_over(outcome: Outcome, path: Path, allowed: Collection[Verdict], as_json: bool) -> None:
    """Tell the verdict; then move the file to its place, or away."""
    place = outcome.file
    present = place.is_file() and place.samefile(path)  # it was there before, and is one of two names of this file
    if outcome.verdict in allowed and not present:
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
    (show_json if as_json else show_text)(outcome)
    if outcome.verdict not in allowed:
        path.unlink()
        kept = f"{printable(str(place))} was there before, and is left" if place.exists() else "not kept"
        say(f"  {kept}; --allow {outcome.verdict} would hand it over")


def _judge(ctx: click.Context, client: Any, options: dict[str, Any], stack: ExitStack) -> _Judge:
    settings = settings_of(ctx)
    trust = load_trust(trust_settings(settings.trust, options))
    if trust is None:
        say("nobody is trusted: give --anchors or --federation, or set them under [trust] in the settings")
        trust = Trust(())
    store = stack.enter_context(open_store(settings, migrate=False)) if settings.store.named else None
    stale = options["allow_stale_crl"] or settings.trust.allow_stale_crl
    return _Judge(client, store, trust, ArchiveLimits(**asdict(settings.limits)), stale, datetime.now(UTC))


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A folder on the same file system, where nobody takes a file for what it has not been found to be.

    Only the first interruption counts: another one would leave the folder behind.
    """

    def interrupted(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    folder.mkdir(parents=True, exist_ok=True)
    before = signal.signal(signal.SIGINT, interrupted)
    aside = Path(tempfile.mkdtemp(prefix=".rucio-trace-", dir=folder))
    try:
        yield aside
    except KeyboardInterrupt:
        deadline = time.monotonic() + _SETTLES_WITHIN
        while time.monotonic() < deadline:  # threads that were at work make another folder or two
            shutil.rmtree(aside, ignore_errors=True)
            time.sleep(0.1)
            if not aside.exists():
                break
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        signal.signal(signal.SIGINT, before)


def _items(dids: Sequence[str], options: dict[str, Any]) -> list[dict[str, Any]]:
    """What Rucio's client takes."""
    from rucio.common.config import config_get_float

    speed = config_get_float("download", "transfer_speed_timeout", False, _SPEED_KBPS)
    common = {
        "rse": options["rses"],
        "no_subdir": options["no_subdir"],
        "impl": options["impl"],
        "force_scheme": options["protocol"],
        "nrandom": options["nrandom"],
        "transfer_timeout": options["transfer_timeout"],
        "transfer_speed_timeout": speed,
    }
    named = [did if ":" in did or not options["scope"] else f"{options['scope']}:{did}" for did in dids]
    for did in named:
        if ":" not in did:
            raise click.UsageError(f"{printable(did)}: expected SCOPE:NAME, or give --scope")
    return [{"did": did, **common} for did in named]
