"""`rucio-trace export`: writes traces in the words of others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rucio_trace.cli import EXIT_UNDECIDED, settings_of
from rucio_trace.cli.finding import digests_of, is_digest
from rucio_trace.cli.terminal import json_line, printable, say
from rucio_trace.cli.traces import note_on
from rucio_trace.configured import open_store
from rucio_trace.exchange import cdse, prov, stac
from rucio_trace.history import history_of
from rucio_trace.joining import join

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from rucio_trace.envelope import Trace
    from rucio_trace.history import History
    from rucio_trace.store import Stored, TraceStore
    from rucio_trace.trace import ProductKey

__all__ = ["export"]


@click.command()
@click.argument("what", metavar="[SCOPE:NAME|FILE|ID]...", nargs=-1)
@click.option("--digest", "digests", multiple=True, metavar="HEX", help="Of files with this digest, of any algorithm.")
@click.option("--format", "form", type=click.Choice(["cdse", "prov", "stac"]), default="cdse", show_default=True)
@click.option("--service", metavar="URL", help="With stac: base of the trace service's API, to link to.")
@click.option("--items", metavar="URL", help="With stac: base of the catalogue's items, to link to a successor.")
@click.pass_context
def export(ctx: click.Context, /, what: tuple[str, ...], digests: tuple[str, ...], form: str, **links: Any) -> None:
    """Write the traces of products in the words of others.

    cdse: an array for the Copernicus Traceability Service, with the events it knows. prov: a W3C PROV-JSON
    document. stac: for each product, on a line, the parts of a STAC Item.

    \b
    Example:
      rucio-trace export s2:S2A_MSIL1C_20230420T100021_N0509_R122_T33UVP_20230420T120027.SAFE.zip --format prov
    """
    if not what and not digests:
        raise click.UsageError("name a product, a file, a trace or a --digest")
    found: dict[int, Stored] = {}
    code = 0
    with open_store(settings_of(ctx), migrate=False) as store:
        for name, of_name in _asked(store, what, digests):
            found |= {stored.position: stored for stored in _whole(store, of_name)}
            if not of_name:
                say(f"{printable(name)}: no traces in the store")
                code = EXIT_UNDECIDED
    traces = [found[position].trace for position in sorted(found)]
    _FORMS[form](traces, links)
    for trace in traces:
        if note := note_on(trace):
            say(f"trace {trace.id}: {note}")
    ctx.exit(code)


def _asked(store: TraceStore, what: Iterable[str], digests: Iterable[str]) -> Iterable[tuple[str, Collection[Stored]]]:
    for digest in digests:
        yield digest, store.by_digest(digest.lower())
    for name in what:
        if Path(name).is_file():
            tried = (store.by_digest(found) for found in digests_of(name, store))
            yield name, next((traces for traces in tried if traces), [])
        elif ":" not in name:
            yield name, store.by_id(name.lower()) or (store.by_digest(name.lower()) if is_digest(name) else [])
        else:
            scope, _, rest = name.partition(":")
            yield name, store.by_did(scope, rest)


def _whole(store: TraceStore, found: Collection[Stored]) -> Iterable[Stored]:
    """*found* with all that was said of the same products and files: what withdraws one need not bear its digest."""
    keys = {key for stored in found if (key := stored.trace.statement.product) is not None}
    yield from found
    for of in store.product(keys).values():
        yield from of
    for s in {s.hash: s for stored in found if (s := stored.trace.statement).product is None}.values():
        yield from (o for o in store.by_digest(s.hash) if o.trace.statement.product is None)


def _cdse(traces: list[Trace], _links: dict[str, Any]) -> None:
    left_out = {trace.id: reason for trace in traces if (reason := cdse.unfit(trace)) is not None}
    json_line([cdse.for_service(trace) for trace in traces if trace.id not in left_out])
    for id_, reason in left_out.items():
        say(f"trace {id_}: left out, the service would not understand it: {reason}")


def _prov(traces: list[Trace], _links: dict[str, Any]) -> None:
    json_line(prov.document(traces))


def _stac(traces: list[Trace], links: dict[str, Any]) -> None:
    """Of each product, with what joined it; a file in no Rucio stands for itself if it joined none of them."""
    for name, history in _products(traces):
        parts = stac.item_parts(history, links["service"], links["items"])
        if parts is None:
            say(f"{printable(name)}: nothing stands that vouches for its bytes")
        else:
            if "file:checksum" not in parts["assets"]["product"]:
                say(f"{printable(name)}: no checksum, as the algorithm of its digest is signed by nobody")
            json_line(parts)


def _products(traces: Iterable[Trace]) -> list[tuple[str, History]]:
    in_rucio: dict[ProductKey, list[Trace]] = {}
    outside: list[Trace] = []
    for trace in traces:
        key = trace.statement.product
        if key is None:
            outside.append(trace)
        else:
            in_rucio.setdefault(key, []).append(trace)
    joined = {key: join(own, outside) for key, own in in_rucio.items()}
    found = [(key.did, history_of([*own, *joined[key]])) for key, own in in_rucio.items()]
    taken = {id(trace) for of in joined.values() for trace in of}
    files: dict[tuple[str, int, str], list[Trace]] = {}
    for trace in outside:
        if id(trace) not in taken:
            s = trace.statement
            files.setdefault((s.name, s.size, s.hash), []).append(trace)
    return found + [(file[0], history_of(of)) for file, of in files.items()]


_FORMS = {"cdse": _cdse, "prov": _prov, "stac": _stac}
