"""What Rucio shows of replicas that a batch verified: it stays, whatever is recorded of the product afterwards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import test_recorder as life
from click.testing import CliRunner
from rucio_trace_daemons.recorder.refresh import refresh
from rucio_trace_policy.database import writing
from rucio_trace_policy.tables import tables
from samples import batch_statement
from sqlalchemy import select

from rucio_trace.batch import Line, write_lines
from rucio_trace.cli import cli
from rucio_trace.corrections import withdraw
from rucio_trace.envelope import sign
from rucio_trace.history import history_of
from rucio_trace.statement import Event, format_time, parse_time
from rucio_trace.store import Outcome

if TYPE_CHECKING:
    from collections.abc import Collection

    from recorder_kit import Kit
    from rucio_trace_sandbox.storage import Rse

    from rucio_trace.envelope import Trace
    from rucio_trace.trace import ProductKey, Statement

kit = life.kit
here = life.here
there = life.there
MOMENT = timedelta(milliseconds=1)


def keys(kit: Kit) -> list[ProductKey]:
    return list(dict.fromkeys(key for stored in kit.traces() if (key := stored.trace.statement.product)))


def verify(kit: Kit, rse: Rse, of: Collection[ProductKey], at: datetime, **fields: Any) -> Trace:
    """Do what an auditor does that read replicas *of* these products at one moment and found them good."""
    recorder, signer = kit.recorder(), kit.member.signer
    store = recorder.store
    digests = {key: store.product([key])[key][0].trace.statement.hash for key in of}
    lines = [Line(key.did, key.generation, f"BLAKE3:{digests[key]}", format_time(at)) for key in of]
    who = {"site": "SITE-A", "signer": signer.fingerprint, "time": format_time(at + MOMENT)}
    made = sign(batch_statement(lines, rse=rse.name, rucio="test-rucio", **{**who, **fields}), signer)
    lists = {made.id: write_lines(lines)} if made.statement.event is Event.VERIFY else {}
    recorder.names.note("def", rse.name, rse.id)
    with writing(kit.rucio.engine) as connection:
        recorder.names.save(connection, {(rse.name, rse.id)})
    (answer,) = store.register([made], trust=recorder.trust(), lists=lists)
    assert answer.outcome is Outcome.STORED, answer
    show(kit, of)
    return made


def show(kit: Kit, of: Collection[ProductKey]) -> None:
    recorder = kit.recorder()
    refresh(kit.rucio.engine, recorder.store, recorder.names, recorder.trust(), of)


def proofs(kit: Kit, name: str) -> dict[str, datetime]:
    table = tables(kit.rucio.backend).replicas
    with kit.rucio.engine.connect() as connection:
        return {r.rse: r.proven_at for r in connection.execute(select(table).where(table.c.name == name))}


def test_a_batch_moves_what_rucio_shows_and_a_later_trace_does_not_move_it_back(
    kit: Kit, here: Rse, there: Rse
) -> None:
    life.uploaded(kit, here)
    life.uploaded(kit, here, "other")
    at = max(proofs(kit, "file")["HERE"], proofs(kit, "other")["HERE"]) + MOMENT
    made = verify(kit, here, keys(kit), at)
    assert proofs(kit, "file") == proofs(kit, "other") == {"HERE": at}
    product = kit.product("file")
    assert product is not None
    assert (product.status, product.verified_at, product.position) == ("GENUINE", at, 3)
    kit.copy(here, there, "file")
    kit.run()
    shown = proofs(kit, "file")
    assert shown["HERE"] == at
    assert kit.traces("file")[-1].trace.statement.source is not None
    assert made.id not in [stored.id for stored in kit.traces("file")]


def test_an_older_view_never_takes_a_proof_back(kit: Kit, here: Rse) -> None:
    from rucio_trace_daemons.recorder.finish import snapshot, write_snapshots

    life.uploaded(kit, here)
    [key] = keys(kit)
    recorder = kit.recorder()
    history = recorder.store.product([key])[key]
    row = kit.product("file")
    assert row is not None
    old = snapshot((row.scope, row.name, row.generation), history, recorder.names.of(key.vo), ())
    at = proofs(kit, "file")["HERE"] + MOMENT
    verify(kit, here, [key], at)
    with writing(kit.rucio.engine) as connection:
        write_snapshots(connection, [old])
    assert proofs(kit, "file") == {"HERE": at}


def test_a_line_proves_a_replica_whose_bytes_nobody_had_read(kit: Kit, here: Rse, there: Rse) -> None:
    from rucio.core.rse import add_rse_attribute

    life.uploaded(kit, here)
    with kit.rucio.session() as session:
        add_rse_attribute(there.id, "trace_method", "none", session=session)
    kit.copy(here, there, "file")
    kit.run()
    assert kit.replicas("file") == {"HERE": "proven", "THERE": "waiting"}
    verify(kit, there, keys(kit), parse_time(life.last(kit).time or "") + MOMENT)
    assert kit.replicas("file") == {"HERE": "proven", "THERE": "proven"}


def test_a_withdrawn_batch_leaves_what_single_traces_say(kit: Kit, here: Rse) -> None:
    life.uploaded(kit, here)
    first = proofs(kit, "file")
    made = verify(kit, here, keys(kit), first["HERE"] + MOMENT)
    assert proofs(kit, "file") != first
    verify(
        kit,
        here,
        keys(kit),
        first["HERE"] + MOMENT,
        event=Event.REVOKE,
        revokes=made.id,
        name=made.statement.name,
    )
    assert proofs(kit, "file") == first


def test_a_batch_is_withdrawn_by_command_and_rucio_follows_whoever_did_it(kit: Kit, here: Rse) -> None:
    def revoke(*options: str) -> Statement:
        result = CliRunner().invoke(cli, ["--config", str(kit.file), "revoke", made.id, *options])
        assert result.exit_code == 0, result.output
        return kit.traces()[-1].trace.statement

    life.uploaded(kit, here)
    first = proofs(kit, "file")
    made = verify(kit, here, keys(kit), first["HERE"] + MOMENT)
    proven = proofs(kit, "file")
    withdrawal = revoke("--reason", "a bad cable")
    repeated = ("name", "size", "hash", "hash_algorithm", "rucio", "vo", "rse", "batch")
    for key in repeated:
        assert getattr(withdrawal, key) == getattr(made.statement, key), key
    assert (withdrawal.event, withdrawal.revokes, withdrawal.method) == (Event.REVOKE, made.id, None)
    assert proofs(kit, "file") == first
    assert revoke("--reason", "again") == withdrawal  # nothing more was said
    revoke("--undo")
    assert proofs(kit, "file") == proven

    recorder = kit.recorder()
    recorder.follow()
    elsewhere = withdraw(made, None, history_of([]), "said by a colleague")
    [answer] = recorder.store.register([elsewhere.signed(kit.member.signer, "SITE-A", datetime.now(UTC))], trust=None)
    assert answer.outcome is Outcome.STORED
    assert proofs(kit, "file") == proven
    kit.recorder().follow()
    assert proofs(kit, "file") == first


def test_a_line_is_no_reason_to_show_what_rucio_removed(kit: Kit, here: Rse) -> None:
    life.uploaded(kit, here)
    of = keys(kit)
    at = proofs(kit, "file")["HERE"] + MOMENT
    kit.delete(here, "file")
    kit.run()
    verify(kit, here, of, at)
    assert kit.replicas("file") == {}
    assert kit.events("file") == [("CREATE", "HERE"), ("DELETE", "HERE")]


def test_the_deletion_of_a_replica_that_only_batches_tell_of_is_signed(kit: Kit, here: Rse, there: Rse) -> None:
    life.uploaded(kit, here)
    kit.copy(here, there, "file")
    copied = kit.outbox
    table = tables(kit.rucio.backend).outbox
    with kit.rucio.engine.begin() as connection:  # as if the hooks had come after it
        connection.execute(table.delete().where(table.c.id.in_([row.id for row in copied])))
    made = verify(kit, there, keys(kit), proofs(kit, "file")["HERE"] + MOMENT)
    kit.delete(there, "file")
    kit.run()
    assert kit.events("file") == [("CREATE", "HERE"), ("DELETE", "THERE")]
    assert life.last(kit).unobserved is None
    assert made.statement.rse == "THERE"


def test_an_rse_that_was_renamed_is_the_same_replica(kit: Kit, here: Rse) -> None:
    from rucio.core.rse import update_rse

    life.uploaded(kit, here)
    at = proofs(kit, "file")["HERE"] + MOMENT
    verify(kit, here, keys(kit), at)
    with kit.rucio.session() as session:
        update_rse(here.id, {"name": "ELSEWHERE"}, session=session)
    show(kit, keys(kit))
    assert proofs(kit, "file") == {"HERE": at}
