"""`rucio-trace proof`: single replicas out of the batches they were verified in, for those who have no store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rucio_trace.batch import check_line, parse_proof, product_of, proof_to_json
from rucio_trace.checking import Refused, check_trace
from rucio_trace.cli import EXIT_UNDECIDED, settings_of
from rucio_trace.cli.terminal import json_line, printable, say
from rucio_trace.cli.verdicts import COLOURS
from rucio_trace.cli.verify import load_trusted, trust_options
from rucio_trace.configured import open_store, read_file
from rucio_trace.digest import digest_file
from rucio_trace.errors import Refuted
from rucio_trace.strictjson import MAX_BYTES
from rucio_trace.verify import EXIT_CODES, Verdict, verdict_on_refusal

if TYPE_CHECKING:
    from rucio_trace.batch import LineProof
    from rucio_trace.identity import Trust

__all__ = ["proof"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(short_help="Show and check proofs of replicas verified in batches.")
def proof() -> None:
    """Show and check proofs of single replicas that were verified in a batch.

    \b
    Example:
      rucio-trace proof show s2:product.SAFE.zip > proof.json
    """


@proof.command()
@click.argument("did", metavar="SCOPE:NAME")
@click.option("--rse", metavar="RSE", help="Of the replica on this RSE, by the name that was signed.")
@click.pass_context
def show(ctx: click.Context, did: str, rse: str | None) -> None:
    """Print, as JSON, the proof of the last time that a batch found a product good.

    That is the signed trace of the batch, the product's line in its list, and the path from the line to the signed
    root; of a name that was given again, that of the newest product.

    \b
    Example:
      rucio-trace proof show s2:product.SAFE.zip --rse SITE-A_DISK > proof.json
    """
    scope, colon, name = did.partition(":")
    if not (scope and colon and name):
        raise click.UsageError(f"{printable(did)}: expected SCOPE:NAME")
    with open_store(settings_of(ctx), migrate=False) as store:
        keys = {key for stored in store.by_did(scope, name) if (key := stored.trace.statement.product) is not None}
        newest = max(keys, key=lambda key: key.generation, default=None)
        found = store.line_proof(newest, rse) if newest is not None else None
    if found is None:
        say(f"{printable(did)}: no batch in the store that stands has it{f' on {printable(rse)}' if rse else ''}")
        ctx.exit(EXIT_UNDECIDED)
    json_line(proof_to_json(found))


@proof.command()
@click.argument("proof_file", metavar="PROOF", type=_FILE)
@click.argument("file", metavar="[FILE]", required=False, type=_FILE)
@trust_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def check(ctx: click.Context, /, proof_file: Path, file: Path | None, as_json: bool, **options: Any) -> None:
    """Tell whether a proof holds, and whether FILE is what it speaks of.

    GENUINE says that a trusted site read the replica at that time and found the origin's bytes. A proof does not know
    whether its batch was withdrawn since. Ends as `verify` does.

    \b
    Example:
      rucio-trace proof check proof.json product.SAFE.zip --anchors federation-ca.pem
    """
    found = parse_proof(read_file(proof_file, most=MAX_BYTES + 1))
    trust, stale = load_trusted(ctx, options)
    verdict, reasons = _judge(found, file, trust, allow_stale_crl=stale)
    if as_json:
        json_line({"proof": str(proof_file), "verdict": verdict, "faults": reasons, **_told(found)})
    else:
        colour = COLOURS.get(verdict, "red")
        click.echo(f"{printable(str(proof_file))}: {click.style(verdict, fg=colour, bold=True)}")
        for reason in reasons or [_sentence(found)]:
            click.echo(f"  {printable(reason, limit=None)}")
    ctx.exit(EXIT_CODES[verdict])


def _judge(proof: LineProof, file: Path | None, trust: Trust, *, allow_stale_crl: bool) -> tuple[Verdict, list[str]]:
    try:
        check_trace(proof.trace, trust, datetime.now(UTC), allow_stale_crl=allow_stale_crl)
        line = check_line(proof)
    except Refused as refused:
        return verdict_on_refusal(refused), [str(fault) for fault in refused.faults]
    except Refuted as error:
        return Verdict.TAMPERED, [str(error)]
    algorithm, _, expected = line.digest.partition(":")
    measured = digest_file(file, [algorithm]).hashes[algorithm] if file is not None else expected
    if measured != expected:
        return Verdict.TAMPERED, [f"{algorithm} of {file} should be {expected}, found {measured}"]
    return Verdict.GENUINE, []


def _told(proof: LineProof) -> dict[str, Any]:
    """What the proof says; nothing of it counts unless the verdict is GENUINE."""
    s, line = proof.trace.statement, proof.line
    key = product_of(s, line)
    return {
        "product": {"rucio": key.rucio, "vo": key.vo, "did": key.did, "generation": key.generation},
        "digest": line.digest,
        "time": line.time,
        "rse": s.rse,
        "site": s.site,
        "trace": proof.trace.id,
    }


def _sentence(proof: LineProof) -> str:
    s, line = proof.trace.statement, proof.line
    assert s.batch is not None
    place = f"line {proof.index + 1:,} of {s.batch.count:,} of trace {proof.trace.id}"
    return f"{line.did} of {s.rucio} was found good at {line.time} on {s.rse} by {s.site}: {line.digest} ({place})"
