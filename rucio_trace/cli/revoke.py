"""`rucio-trace revoke`: a trace is withdrawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rucio_trace.cli import EXIT_UNDECIDED
from rucio_trace.cli.correcting import desk
from rucio_trace.cli.signing import signing_options
from rucio_trace.cli.terminal import printable, say
from rucio_trace.corrections import withdraw
from rucio_trace.errors import Refuted
from rucio_trace.joining import linked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rucio_trace.cli.correcting import Desk
    from rucio_trace.store import Stored
    from rucio_trace.trace import ProductKey

    Histories = dict[ProductKey | None, Sequence[Stored]]

__all__ = ["revoke"]


class WhichTrace(Refuted):
    """The id does not tell which trace is meant."""

    def __init__(self, id_: str, count: int) -> None:
        super().__init__(f"trace {id_}", expected="one in the store", found=str(count))


@click.command()
@click.argument("trace_id", metavar="TRACE-ID")
@click.option("--reason", metavar="TEXT", help="Why; signed along. Wanted, except with --undo.")
@click.option("--undo", is_flag=True, help="Take back that it is withdrawn, as far as we said so.")
@click.option("--dry-run", is_flag=True, help="Print what would be signed; register nothing.")
@signing_options
@click.pass_context
def revoke(ctx: click.Context, /, trace_id: str, **options: Any) -> None:
    """Withdraw a trace, or take a withdrawal back.

    Signs a REVOKE in each product that the trace is part of, registers it in the store and prints its id. Wanted is a
    key with the right `revoke` in the scope. A trace of a file in no Rucio that is part of no product, and the VERIFY
    of a batch, are withdrawn by whoever signed them. --undo withdraws the REVOKE. What is withdrawn already is not
    withdrawn twice.

    \b
    Example:
      rucio-trace revoke c203b993-4563-4e71-8d0f-2956e212aac9 --reason "digest of an earlier build"
    """
    if not options["undo"] and not (options["reason"] or "").strip():
        raise click.UsageError("give a --reason")
    with desk(ctx, options) as at:
        found = at.store.by_id(trace_id.lower())
        if len(found) != 1:
            raise WhichTrace(trace_id, len(found))
        histories = _histories(at, found[0])
        act = _undo if options["undo"] else _revoke
        done = act(at, found[0], histories, options["reason"])
    ctx.exit(0 if done else EXIT_UNDECIDED)


def _histories(at: Desk, target: Stored) -> Histories:
    """The history of each product that *target* is part of; of the file or list, if it is in no product."""
    s = target.trace.statement
    if s.product is not None:
        return {s.product: at.store.product([s.product])[s.product]}
    of_name = (stored.trace.statement for stored in at.store.by_name(s.name))
    keys = {of.product for of in of_name if linked(of) and of.product is not None}
    products = at.store.product(keys)
    joined: Histories = {
        key: history for key, history in products.items() if any(of.position == target.position for of in history)
    }
    if joined:
        return joined
    return {None: [of for of in at.store.by_digest(s.hash) if of.trace.statement.product is None]}


def _revoke(at: Desk, target: Stored, histories: Histories, reason: str | None) -> bool:
    corrections = []
    for key, traces in histories.items():
        found, history = at.believed(traces)
        if (by := found.withdrawn.get(target.position)) is not None:
            say(f"{target.id} is withdrawn already: {by.id}, {printable(by.statement.obsolescence or 'no reason')}")
        else:
            corrections.append(withdraw(target.trace, key, history, reason))
    if corrections:
        at.say(corrections)
    return True


def _undo(at: Desk, target: Stored, histories: Histories, reason: str | None) -> bool:
    done = True
    for key, traces in histories.items():
        found, history = at.believed(traces)
        said = [stored for stored in found.standing if stored.trace.statement.revokes == target.id]
        if said:
            done &= at.take_back(key, history, said, reason)
        else:
            say(f"{target.id} is not withdrawn")
    return done
