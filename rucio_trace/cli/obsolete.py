"""`rucio-trace obsolete`: a product should not be used any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rucio_trace.cli import EXIT_UNDECIDED
from rucio_trace.cli.correcting import desk
from rucio_trace.cli.product import keys_of, of_generation, split_did
from rucio_trace.cli.rucio import living_generation
from rucio_trace.cli.signing import signing_options
from rucio_trace.cli.terminal import printable, say
from rucio_trace.corrections import discourage
from rucio_trace.errors import Refuted
from rucio_trace.trace import Event

if TYPE_CHECKING:
    from rucio_trace.cli.correcting import Desk
    from rucio_trace.trace import ProductKey

__all__ = ["obsolete"]


class WhichProduct(Refuted):
    """The name does not tell which product is meant."""


@click.command()
@click.argument("did", metavar="SCOPE:NAME")
@click.option("--reason", metavar="TEXT", help="Why; signed along. Wanted, except with --undo.")
@click.option("--replaced-by", metavar="SCOPE:NAME", help="What to use instead.")
@click.option("--undo", is_flag=True, help="Take back that it is obsolete, as far as we said so.")
@click.option("--generation", metavar="TIME", help="Of several products of the name the one that began then.")
@click.option("--dry-run", is_flag=True, help="Print what would be signed; register nothing.")
@signing_options
@click.pass_context
def obsolete(ctx: click.Context, /, did: str, **options: Any) -> None:
    """Say that a product should not be used any more, or take that back.

    Signs an OBSOLETE of the newest product of the name, registers it in the store and prints its id. Wanted is a key
    with the right `obsolete` in the scope; --undo signs a REVOKE of it, by the right `revoke`. What stands already is
    not said twice.

    \b
    Example:
      rucio-trace obsolete s2:product.SAFE.zip --reason "wrong orbit file" --replaced-by s2:product_2.SAFE.zip
    """
    reason, successor = options["reason"], options["replaced_by"]
    if options["undo"] and successor:
        raise click.UsageError("--undo takes no --replaced-by")
    if not options["undo"] and not (reason or "").strip():
        raise click.UsageError("give a --reason")
    split_did(did)
    if successor and ":".join(split_did(successor, "--replaced-by")) == did:
        raise click.UsageError("a product does not replace itself")
    with desk(ctx, options) as at:
        key = _product(at, did, options["generation"])
        done = _undo(at, key, reason) if options["undo"] else _discourage(at, key, reason, successor)
    ctx.exit(0 if done else EXIT_UNDECIDED)


def _product(at: Desk, did: str, generation: str | None) -> ProductKey:
    """The one that is meant.

    Raises:
        WhichProduct: there is none, or several of that name in different Rucios; or Rucio has a newer one.
    """
    keys = of_generation(keys_of(at.store, did), generation)
    homes = {(key.rucio, key.vo) for key in keys}
    own = (at.settings.instance.name, at.settings.instance.vo)
    if len(homes) > 1 and own in homes:
        keys, homes = [key for key in keys if (key.rucio, key.vo) == own], {own}
    if len(homes) != 1:
        where = ", ".join(sorted(f"{rucio} (VO {vo})" for rucio, vo in homes)) or "none"
        raise WhichProduct(did, expected="one Rucio in whose store it has traces", found=where)
    newest = keys[0]
    if generation is None and newest.rucio == own[0]:
        living = living_generation(newest)
        if living not in (None, newest.generation):
            raise WhichProduct(
                f"{did} in Rucio, created {living}",
                expected="traces of it",
                found=f"traces of the one created {newest.generation}",
                hint="wait for the recorder, or say which with --generation",
            )
    return newest


def _discourage(at: Desk, key: ProductKey, reason: str, successor: str | None) -> bool:
    _, history = at.believed(at.store.product([key])[key])
    for trace in history.obsolete:
        s = trace.statement
        if successor in (None, s.replaced_by):
            say(f"{printable(key.did)} is obsolete already: {trace.id}, {printable(s.obsolescence or 'no reason')}")
            return True
    if history.obsolete:
        raise WhichProduct(
            key.did,
            expected=f"one successor, {successor}",
            found=f"obsolete already, and replaced by {history.obsolete[0].statement.replaced_by or 'nothing'}",
            hint="take that back first, with --undo",
        )
    correction = discourage(key, history, reason, successor)
    if successor and not keys_of(at.store, successor):
        say(f"note: the store knows nothing of {printable(successor)}")
    at.say([correction])
    return True


def _undo(at: Desk, key: ProductKey, reason: str | None) -> bool:
    found, history = at.believed(at.store.product([key])[key])
    said = [stored for stored in found.standing if stored.trace.statement.event is Event.OBSOLETE]
    if not said:
        say(f"{printable(key.did)} is not obsolete")
        return True
    return at.take_back(key, history, said, reason)
