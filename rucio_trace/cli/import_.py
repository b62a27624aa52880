"""`rucio-trace import`: takes in traces that come with products from elsewhere."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from rucio_trace.cli import EXIT_UNDECIDED, settings_of, spool_folder
from rucio_trace.cli.terminal import json_line, printable, say, show_table
from rucio_trace.configured import load_trust, open_store
from rucio_trace.errors import ConfigurationError, TraceabilityError
from rucio_trace.exchange.fetch import fetch, is_address
from rucio_trace.exchange.incoming import read_traces
from rucio_trace.faults import Altered, Expired, Uncertain, Untrusted
from rucio_trace.store import Outcome
from rucio_trace.verify import EXIT_CODES, Verdict, worst

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rucio_trace.envelope import Trace
    from rucio_trace.faults import Fault
    from rucio_trace.identity import Trust
    from rucio_trace.store import Registration, TraceStore

    _Register = Callable[[list[Trace]], list[Registration]]

__all__ = ["import_"]

_PIECE = 256 * 1024
_SHOWN = 100  # rows of the table; then only what went wrong
_SHOWN_BAD = 1_000

_VERDICTS: tuple[tuple[type[Fault], Verdict], ...] = (
    (Altered, Verdict.TAMPERED),
    (Untrusted, Verdict.UNTRUSTED),
    (Expired, Verdict.EXPIRED),
    (Uncertain, Verdict.UNDECIDED),
)
_STYLES: dict[str, str] = {
    "stored": "green",
    "known": "dim",
    "spooled": "yellow",
    "conflict": "red",
    **{str(v): "bold red" for _, v in _VERDICTS},
}


@dataclass(frozen=True, slots=True)
class _Result:
    """What became of one trace: `answer` is of the store, None where that could not be asked."""

    source: str
    number: int
    trace: Trace
    answer: Registration

    @property
    def word(self) -> str:
        """`stored`, `known`, `conflict`, `spooled`, or the verdict on a trace that is not taken."""
        if self.answer.kept_in is not None:
            return "spooled"
        if self.answer.outcome in (Outcome.STORED, Outcome.KNOWN, Outcome.CONFLICT):
            return self.answer.outcome
        return self.verdict

    @property
    def verdict(self) -> Verdict:
        if self.answer.outcome in (Outcome.STORED, Outcome.KNOWN):
            return Verdict.GENUINE
        for family, verdict in _VERDICTS:
            if any(isinstance(fault, family) for fault in self.answer.faults):
                return verdict
        return Verdict.UNDECIDED if self.answer.outcome is Outcome.UNDECIDED else Verdict.TAMPERED


@click.command("import")
@click.argument("sources", metavar="FILE|URL|-...", nargs=-1, required=True)
@click.option("--scope", metavar="NAME", help="The products are to join this scope: its rights count, not `outside`.")
@click.option("--allow-stale-crl", is_flag=True, help="Use revocation lists past their date.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line per trace.")
@click.pass_context
def import_(
    ctx: click.Context, /, sources: tuple[str, ...], scope: str | None, allow_stale_crl: bool, as_json: bool
) -> None:
    """Take in traces that come with products from elsewhere: of the Copernicus Traceability Service, or ours.

    Each is held against those trusted in the settings, or by the trace service there, and kept as it was signed, with
    a note of what its signature does not cover. One that is not accepted costs itself alone. While a service is away
    they wait on this machine (spooled) for the next time. Ends as `verify` does: 0 if all were taken.

    \b
    Example:
      rucio-trace import https://trace.dataspace.copernicus.eu/api/v1/traces/name/product.SAFE.zip
    """
    settings = settings_of(ctx)
    trust = load_trust(settings.trust)
    if trust is None and not settings.store.service:  # which says itself whom it trusts
        raise ConfigurationError(
            f"{settings.file or 'no settings file found'}: trust", expected="federation or anchors", found="neither"
        )
    verdicts: Counter[Verdict] = Counter()
    words: Counter[str] = Counter()
    rows: list[tuple[object, ...]] = []
    code = 0
    with open_store(settings, migrate=False, spool=spool_folder()) as store:
        register = _registering(store, trust, scope, allow_stale_crl or settings.trust.allow_stale_crl)
        for source in sources:
            try:
                for result in _imported(source, register):
                    verdicts[result.verdict] += 1
                    words[result.word] += 1
                    if as_json:
                        json_line(_as_object(result))
                    elif len(rows) < (_SHOWN if result.verdict is Verdict.GENUINE else _SHOWN_BAD):
                        rows.append(_row(result, several=len(sources) > 1))
            except ConfigurationError:
                raise
            except (TraceabilityError, OSError) as error:
                say(f"rucio-trace: {printable(source)}: {printable(str(error), limit=None)}")
                code = EXIT_UNDECIDED
    if rows:
        show_table(("", "answer", "event", "product", "not signed", ""), rows, styles=_STYLES)
    if not as_json and len(rows) < words.total():
        say(f"these are {len(rows)} of {words.total()}; --json tells of all")
    say(", ".join(f"{count} {word}" for word, count in sorted(words.items())) or "no traces")
    ctx.exit(EXIT_CODES[worst([*verdicts, *([Verdict.UNDECIDED] if code else [])])] if verdicts or code else 0)


def _registering(store: TraceStore, trust: Trust | None, scope: str | None, stale: bool) -> _Register:
    def register(traces: list[Trace]) -> list[Registration]:
        scopes = {trace.id: scope for trace in traces if trace.statement.outside} if scope else None
        return store.register(traces, trust=trust, allow_stale_crl=stale, scopes=scopes)

    return register


def _imported(source: str, register: _Register) -> Iterator[_Result]:
    number = 0
    for traces in read_traces(_pieces(source)):
        for trace, answer in zip(traces, register(traces), strict=True):
            number += 1
            yield _Result(source, number, trace, answer)


def _pieces(source: str) -> Iterator[bytes]:
    if is_address(source):
        yield from fetch(source)
    else:
        with click.open_file(source, "rb") as file:
            while piece := file.read(_PIECE):
                yield piece


def _as_object(result: _Result) -> dict[str, Any]:
    trace, answer = result.trace, result.answer
    s = trace.statement
    told = s.name != ""
    return {
        "source": result.source,
        "number": result.number,
        "id": answer.id or None,
        "answer": result.word,
        "event": str(s.event) if told else None,
        "name": s.name or None,
        "hash": s.hash or None,
        "position": answer.position,
        "not_signed": trace.not_signed,
        "reason": answer.reason,
        "faults": [fault.as_dict() for fault in answer.faults],
    }


def _row(result: _Result, *, several: bool) -> tuple[object, ...]:
    s = result.trace.statement
    number = f"{result.source} {result.number}" if several else result.number
    event = s.event if s.name else None
    return number, result.word, event, s.did or s.name, ", ".join(result.trace.not_signed), result.answer.reason
