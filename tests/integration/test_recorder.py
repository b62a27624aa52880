"""What becomes of changes in Rucio: a trace each, or a counted reason (docs/format.md, section 2).

Every test runs on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import io
import zipfile
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from recorder_kit import Kit

from rucio_trace.trace import Source, format_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse, Stored

    from rucio_trace.trace import Statement


@pytest.fixture
def kit(rucio: EmbeddedRucio) -> Iterator[Kit]:
    kit = Kit(rucio)
    yield kit
    kit.close()


@pytest.fixture
def here(kit: Kit) -> Rse:
    return kit.rucio.add_posix_rse("HERE")


@pytest.fixture
def there(kit: Kit) -> Rse:
    return kit.rucio.add_posix_rse("THERE")


@pytest.fixture(autouse=True)
def every_row_ended_or_waits(kit: Kit) -> Iterator[None]:
    """Whatever a test did: as many rows were counted as traces were signed, and no row is held."""
    yield
    assert all(row.claimed_by is None for row in kit.outbox)
    counted = {word: count for word, count in kit.outcomes.items() if word.isupper()}
    signed: dict[str, int] = {}
    for event, _ in kit.events():
        signed[event] = signed.get(event, 0) + 1
    assert counted == signed


def last(kit: Kit, name: str = "file") -> Statement:
    return kit.traces(name)[-1].trace.statement


def uploaded(kit: Kit, rse: Rse, name: str = "file", content: bytes = b"content") -> Stored:
    """An uploaded file whose CREATE is signed."""
    stored = kit.rucio.upload(rse, name, content)
    kit.run()
    return stored


# ---------------------------------------------------------------------------------------- arrivals


def test_an_upload_is_signed_as_create(kit: Kit, here: Rse) -> None:
    stored = kit.rucio.upload(here, "file", b"content")
    row = kit.outbox[-1]
    kit.run()
    statement = last(kit)
    assert kit.events() == [("CREATE", "HERE")]
    assert (statement.did, statement.name, statement.size) == ("test:file", "file", 7)
    assert statement.hashes == {"ADLER32": stored.adler32}
    assert (statement.method, statement.site, statement.adopted, statement.source) == ("read", "SITE-A", None, None)
    assert statement.event_id == row.event_id
    assert statement.time == format_time(row.at)
    assert statement.observed is not None
    assert statement.observed >= statement.time
    assert kit.outbox == []
    assert kit.outcomes == {"expected": 1, "CREATE": 1}


def test_the_status_is_shown_in_rucio(kit: Kit, here: Rse) -> None:
    uploaded(kit, here)
    [trace] = kit.traces()
    product = kit.product("file")
    assert product is not None
    assert (product.status, product.proven, product.total) == ("GENUINE", 1, 1)
    assert (product.trace_id, product.hash, product.hash_algorithm) == (trace.id, last(kit).hash, "BLAKE3")
    assert product.position == trace.position
    assert kit.replicas("file") == {"HERE": "proven"}


def test_a_transfer_is_signed_as_copy_and_says_what_brought_it(kit: Kit, here: Rse, there: Rse) -> None:
    uploaded(kit, here)
    kit.copy(here, there, "file")
    kit.run()
    assert kit.events() == [("CREATE", "HERE"), ("COPY", "THERE")]
    create, copy = (stored.trace.statement for stored in kit.traces())
    assert copy.source == Source("HERE", create.event_id)
    assert copy.cause is not None
    assert (copy.cause.tool, copy.cause.activity) == ("fts3", "User Subscriptions")
    assert copy.cause.rule
    assert copy.cause.request
    assert (copy.hash, copy.size, copy.hashes) == (create.hash, create.size, create.hashes)
    product = kit.product("file")
    assert product is not None
    assert (product.status, product.proven, product.total) == ("GENUINE", 2, 2)


def test_creation_and_copy_in_one_batch_name_each_other(kit: Kit, here: Rse, there: Rse) -> None:
    kit.rucio.upload(here, "file", b"content")
    kit.copy(here, there, "file")
    kit.run()
    create, copy = (stored.trace.statement for stored in kit.traces())
    assert (create.event, copy.event) == ("CREATE", "COPY")
    assert copy.source == Source("HERE", create.event_id)


def test_a_second_upload_is_a_copy_without_a_source(kit: Kit, here: Rse, there: Rse) -> None:
    kit.rucio.upload(here, "file", b"content")
    kit.rucio.upload(there, "file", b"content")
    kit.run()
    assert kit.events() == [("CREATE", "HERE"), ("COPY", "THERE")]
    assert last(kit).source is None


def test_a_copy_read_before_its_creation_joins_the_origin_later(kit: Kit, here: Rse, there: Rse) -> None:
    stored = kit.rucio.upload(here, "file", b"content")
    kit.copy(here, there, "file")
    hidden = stored.path.rename(stored.path.with_name("hidden"))
    kit.run()
    copy = last(kit)
    assert kit.events() == [("COPY", "THERE")]
    assert copy.source == Source("HERE", None)
    assert copy.adopted is None
    hidden.rename(stored.path)
    kit.make_due()
    kit.run()
    assert kit.events() == [("COPY", "THERE"), ("CREATE", "HERE")]
    assert kit.replicas("file") == {"HERE": "proven", "THERE": "proven"}
    assert last(kit).hash == copy.hash


def test_an_archive_brings_the_digests_of_its_members(kit: Kit, here: Rse, there: Rse) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("product/band.jp2", b"pixels" * 1000)
        archive.writestr(
            "product/manifest.safe", '<a><orbitNumber groundTrackDirection="descending">40874</orbitNumber></a>'
        )
    uploaded(kit, here, "S2A_MSIL1C_20230420T100021_N0509_R122_T33UVP_20230420T120027.SAFE.zip", buffer.getvalue())
    [trace] = kit.traces()
    statement = trace.trace.statement
    assert statement.contents is not None
    assert [content.path for content in statement.contents] == ["product/band.jp2", "product/manifest.safe"]
    assert statement.attributes is not None
    assert statement.attributes["platformShortName"] == "SENTINEL-2", "the name says so"
    assert statement.attributes["orbitNumber"] == 40874, "the manifest says so"
    kit.copy(here, there, statement.name)
    kit.run()
    assert kit.traces()[-1].trace.statement.contents == statement.contents
    product = kit.product(statement.name)
    assert product is not None
    assert "SENTINEL-2" in product.attributes
    assert "40874" in product.attributes, "a copy, whose manifest was not read again, takes nothing away"


def test_a_broken_archive_is_still_a_file(kit: Kit, here: Rse) -> None:
    uploaded(kit, here, "broken.zip", b"PK\x03\x04 and then nothing")
    statement = last(kit, "broken.zip")
    assert (statement.event, statement.contents) == ("CREATE", None)


def test_an_empty_file_is_a_file(kit: Kit, here: Rse) -> None:
    uploaded(kit, here, content=b"")
    assert (last(kit).event, last(kit).size) == ("CREATE", 0)


@pytest.mark.parametrize("name", ["a b", "Ünïcödé", "x" * 240, "folder/with/parts", "semi;colon?and#hash%20"])
def test_any_name_rucio_takes_is_traced(kit: Kit, here: Rse, name: str) -> None:
    uploaded(kit, here, name)
    assert last(kit, name).did == f"test:{name}"


# ------------------------------------------------------------------------------------- wrong bytes


def test_bytes_that_contradict_rucio_never_become_the_origin(kit: Kit, here: Rse) -> None:
    stored = kit.rucio.upload(here, "file", b"content")
    stored.path.write_bytes(b"CONTENT")
    kit.run()
    statement = last(kit)
    assert statement.event == "CORRUPT"
    assert (statement.hash_algorithm, statement.hash, statement.size) == ("MD5", stored.md5, 7)
    assert statement.found is not None
    assert statement.found.hashes["ADLER32"] != stored.adler32
    product = kit.product("file")
    assert product is not None
    assert (product.status, product.hash) == ("TAMPERED", None)


def test_a_bad_copy_degrades_the_product(kit: Kit, here: Rse, there: Rse) -> None:
    uploaded(kit, here)
    kit.copy(here, there, "file").write_bytes(b"CONTENT")
    kit.run()
    create, corrupt = (stored.trace.statement for stored in kit.traces())
    assert corrupt.event == "CORRUPT"
    assert corrupt.hash == create.hash
    assert corrupt.found is not None
    assert corrupt.found.hashes["BLAKE3"] != create.hash
    product = kit.product("file")
    assert product is not None
    assert product.status == "DEGRADED"
    assert kit.replicas("file") == {"HERE": "proven", "THERE": "corrupt"}


def test_a_file_of_another_size_is_corrupt(kit: Kit, here: Rse) -> None:
    stored = kit.rucio.upload(here, "file", b"content")
    stored.path.write_bytes(b"content and more")
    kit.run()
    found = last(kit).found
    assert found is not None
    assert found.size == 16


# ------------------------------------------------------------------------------------------ doubts


@pytest.mark.parametrize("state", ["D", "U"])
def test_a_doubted_replica_that_is_good_is_verified(kit: Kit, here: Rse, state: str) -> None:
    uploaded(kit, here)
    kit.set_state(here, "file", state)
    kit.run()
    assert kit.events() == [("CREATE", "HERE"), ("VERIFY", "HERE")]


def test_a_doubted_replica_that_is_bad_is_corrupt(kit: Kit, here: Rse) -> None:
    stored = uploaded(kit, here)
    stored.path.write_bytes(b"CONTENT")
    kit.set_state(here, "file", "D")
    kit.run()
    assert kit.events() == [("CREATE", "HERE"), ("CORRUPT", "HERE")]


def test_one_reading_answers_an_arrival_and_a_doubt(kit: Kit, here: Rse) -> None:
    kit.rucio.upload(here, "file", b"content")
    kit.set_state(here, "file", "D")
    kit.run()
    assert kit.events() == [("CREATE", "HERE"), ("VERIFY", "HERE")]
    create, verify = (stored.trace.statement for stored in kit.traces())
    assert create.observed == verify.observed


def test_a_bad_arrival_gives_way_to_the_doubt_about_it(kit: Kit, here: Rse) -> None:
    stored = kit.rucio.upload(here, "file", b"content")
    stored.path.write_bytes(b"CONTENT")
    kit.set_state(here, "file", "D")
    kit.run()
    assert kit.events() == [("CORRUPT", "HERE")]
    assert kit.outcomes == {"expected": 1, "superseded": 1, "CORRUPT": 1}


def test_a_recovered_replica_is_a_copy_that_says_what_it_replaces(kit: Kit, here: Rse, there: Rse) -> None:
    uploaded(kit, here)
    path = kit.copy(here, there, "file")
    path.write_bytes(b"CONTENT")
    kit.set_state(there, "file", "D")
    kit.run()
    corrupt = kit.traces()[-1]
    assert corrupt.trace.statement.event == "CORRUPT"
    path.write_bytes(b"content")
    kit.set_state(there, "file", "C")
    kit.set_state(there, "file", "A")
    kit.run()
    assert last(kit).event == "COPY"
    assert last(kit).replaces == corrupt.id
    assert kit.replicas("file") == {"HERE": "proven", "THERE": "proven"}


def test_a_storage_taken_away_for_a_while_is_never_read_again(kit: Kit, here: Rse) -> None:
    stored = uploaded(kit, here)
    stored.path.unlink()
    kit.set_state(here, "file", "T")
    kit.set_state(here, "file", "A")
    kit.run()
    assert kit.events() == [("CREATE", "HERE")]
    assert kit.outcomes["excluded"] == 2


# --------------------------------------------------------------------------------------- deletions


def test_a_traced_replica_that_goes_leaves_delete(kit: Kit, here: Rse, there: Rse) -> None:
    uploaded(kit, here)
    kit.copy(here, there, "file")
    kit.run()
    kit.delete(there, "file")
    kit.run()
    assert kit.events()[-1] == ("DELETE", "THERE")
    assert last(kit).unobserved is None
    assert last(kit).hash == kit.traces()[0].trace.statement.hash
    assert kit.replicas("file") == {"HERE": "proven"}


def test_a_replica_deleted_before_it_was_read_is_unobserved(kit: Kit, here: Rse, there: Rse) -> None:
    uploaded(kit, here)
    kit.copy(here, there, "file")
    kit.delete(there, "file")
    kit.run()
    assert kit.events() == [("CREATE", "HERE"), ("DELETE", "THERE")]
    assert last(kit).unobserved is True
    assert kit.outcomes["superseded"] == 1


def test_a_product_deleted_before_anybody_read_it_is_named_by_rucios_checksum(kit: Kit, here: Rse) -> None:
    stored = kit.rucio.upload(here, "file", b"content")
    kit.delete(here, "file")
    kit.run()
    statement = last(kit)
    assert (statement.event, statement.unobserved) == ("DELETE", True)
    assert (statement.hash_algorithm, statement.hash) == ("MD5", stored.md5)


def test_an_upload_that_failed_is_superseded(kit: Kit, here: Rse) -> None:
    from rucio.core.replica import add_replicas
    from rucio.db.sqla.constants import ReplicaState

    file = {"scope": kit.rucio.scope, "name": "file", "bytes": 7, "state": ReplicaState.COPYING}
    with kit.rucio.session() as session:
        add_replicas(here.id, [file], kit.rucio.root, session=session)
    kit.delete(here, "file")
    kit.run()
    assert kit.events() == []
    assert kit.outcomes == {"expected": 1, "superseded": 1}


def test_what_the_reaper_has_marked_waits_for_its_deletion(kit: Kit, here: Rse, there: Rse) -> None:
    uploaded(kit, here)
    kit.copy(here, there, "file")
    kit.run()
    kit.set_state(there, "file", "B")
    kit.run()
    assert len(kit.outbox) == 1
    assert kit.outbox[0].attempts == 0
    kit.delete(there, "file")
    kit.run()
    assert kit.outbox == []
    assert kit.events()[2:] == [("DELETE", "THERE")]
    assert kit.outcomes["superseded"] == 1


def test_what_the_reaper_marked_and_left_is_read_once_more(kit: Kit, here: Rse) -> None:
    uploaded(kit, here)
    kit.set_state(here, "file", "B")
    kit.run()
    kit.make_due()
    kit.run(grace=timedelta(0))
    assert kit.events()[1:] == [("VERIFY", "HERE")]


def test_a_name_uploaded_again_is_another_product(kit: Kit, here: Rse) -> None:
    uploaded(kit, here)
    kit.delete(here, "file")
    kit.rucio.upload(here, "file", b"other content")
    kit.run()
    assert kit.events() == [("CREATE", "HERE"), ("DELETE", "HERE"), ("CREATE", "HERE")]
    first, _, second = (stored.trace.statement for stored in kit.traces())
    assert first.generation != second.generation
    assert first.hash != second.hash
    product = kit.product("file")  # only the living generation has a status
    assert product is not None
    assert product.hash == second.hash


def test_the_end_of_a_product_takes_its_status_along(kit: Kit, here: Rse) -> None:
    uploaded(kit, here)
    kit.delete(here, "file")
    kit.run()
    assert kit.product("file") is None
    assert kit.replicas("file") == {}


def test_a_replica_that_comes_back_is_a_copy_that_replaces_nothing(kit: Kit, here: Rse, there: Rse) -> None:
    uploaded(kit, here)
    for _ in range(2):
        kit.copy(here, there, "file")
        kit.run()
        kit.delete(there, "file")
        kit.run()
    assert [event for event, rse in kit.events() if rse == "THERE"] == ["COPY", "DELETE", "COPY", "DELETE"]
    assert all(stored.trace.statement.replaces is None for stored in kit.traces())


# ---------------------------------------------------------------------------------- other methods


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, whoever opens any protocol of Rucio's fails the test."""
    from rucio.rse import rsemanager

    def fail(*_arguments: Any, **_options: Any) -> None:
        pytest.fail("a storage was opened that must not be")

    monkeypatch.setattr(rsemanager, "create_protocol", fail)


@pytest.mark.parametrize("options", [{"rse_type": "TAPE"}, {"staging_required": True}])
def test_tape_is_never_read(kit: Kit, here: Rse, options: dict[str, Any], request: pytest.FixtureRequest) -> None:
    tape = kit.rucio.add_posix_rse("TAPE", **options)
    stored = uploaded(kit, here)
    kit.copy(here, tape, "file")
    request.getfixturevalue("unreadable")
    kit.run()
    assert kit.events()[1:] == [("COPY", "TAPE")]
    statement = last(kit)
    assert (statement.method, statement.observed) == ("transfer", None)
    assert statement.hashes == {"ADLER32": stored.adler32}
    assert statement.cause is not None
    assert statement.cause.tool == "fts3"
    assert kit.replicas("file") == {"HERE": "proven", "TAPE": "waiting"}
    kit.set_state(tape, "file", "D")
    kit.delete(tape, "file")
    kit.run()
    assert kit.events()[2:] == [("DELETE", "TAPE")]


def test_what_no_tool_compared_is_not_signed(kit: Kit, here: Rse) -> None:
    tape = kit.rucio.add_posix_rse("TAPE", rse_type="TAPE")
    uploaded(kit, here)
    kit.copy(here, tape, "file", transfertool="mock")
    kit.run()
    assert len(kit.events()) == 1
    assert "trace_method" in kit.outbox[-1].last_error


def test_a_doubt_about_tape_cannot_be_answered(kit: Kit, here: Rse) -> None:
    tape = kit.rucio.add_posix_rse("TAPE", rse_type="TAPE")
    uploaded(kit, here)
    kit.copy(here, tape, "file")
    kit.run()
    kit.set_state(tape, "file", "D")
    kit.run()
    assert len(kit.events()) == 2
    assert kit.outcomes["excluded"] == 1


def test_the_attribute_overrides_what_tape_means(kit: Kit) -> None:
    tape = kit.rucio.add_posix_rse("TAPE", rse_type="TAPE", trace_method="read")
    uploaded(kit, tape)
    assert last(kit).method == "read"


def test_method_none_records_the_event_alone(kit: Kit, here: Rse, request: pytest.FixtureRequest) -> None:
    blind = kit.rucio.add_posix_rse("BLIND", trace_method="none")
    uploaded(kit, here)
    kit.copy(here, blind, "file")
    request.getfixturevalue("unreadable")
    kit.run()
    assert kit.events()[1:] == [("COPY", "BLIND")]
    assert last(kit).method == "none"
    assert kit.replicas("file")["BLIND"] == "waiting"


def test_a_method_we_do_not_know_waits_and_is_named(kit: Kit) -> None:
    rse = kit.rucio.add_posix_rse("ODD", trace_method="guess")
    kit.rucio.upload(rse, "file", b"content")
    kit.run()
    assert kit.events() == []
    [row] = kit.outbox
    assert "trace_method" in row.last_error
    assert row.attempts == 1


def test_a_cache_leaves_no_trace(kit: Kit, here: Rse, request: pytest.FixtureRequest) -> None:
    from rucio.core.volatile_replica import add_volatile_replicas, delete_volatile_replicas

    cache = kit.rucio.add_posix_rse("CACHE", volatile=True)
    uploaded(kit, here)
    file = [{"scope": kit.rucio.scope, "name": "file"}]
    request.getfixturevalue("unreadable")
    for change in (add_volatile_replicas, delete_volatile_replicas):
        with kit.rucio.session() as session:
            change(cache.id, file, session=session)
        kit.run()
    assert kit.events() == [("CREATE", "HERE")]
    assert kit.outcomes["excluded"] == 2


# ---------------------------------------------------------------------------------------- accounts


@pytest.mark.parametrize(("accounts", "found"), [("keep", "root"), ("omit", None)])
def test_accounts_are_kept_or_left_out_as_told(
    kit: Kit, here: Rse, there: Rse, accounts: str, found: str | None
) -> None:
    uploaded(kit, here)
    kit.copy(here, there, "file")
    kit.run(accounts=accounts)
    cause = last(kit).cause
    assert cause is not None
    assert cause.account == found


def test_by_default_an_account_is_a_pseudonym_that_only_the_site_can_open(kit: Kit, here: Rse, there: Rse) -> None:
    uploaded(kit, here)
    for name in ("file", "other"):
        kit.rucio.upload(here, name, b"content") if name == "other" else None
        kit.copy(here, there, name)
    kit.run()
    first, second = (last(kit, name).cause for name in ("file", "other"))
    assert first is not None
    assert second is not None
    assert first.account == second.account
    assert first.account is not None
    assert first.account.startswith("hmac-sha256:")
    kit.copy(there, kit.rucio.add_posix_rse("ELSEWHERE"), "file")
    kit.run(accounts_key=b"the secret of another site")
    third = last(kit).cause
    assert third is not None
    assert third.account != first.account


# ------------------------------------------------------------------------------------------- names


def test_a_renamed_rse_is_the_same_rse_under_its_new_name(kit: Kit, here: Rse) -> None:
    from rucio.core.rse import update_rse

    uploaded(kit, here)
    with kit.rucio.session() as session:
        update_rse(here.id, {"name": "RENAMED"}, session=session)
    kit.set_state(here, "file", "D")
    kit.run()
    assert kit.events() == [("CREATE", "HERE"), ("VERIFY", "RENAMED")]
    assert kit.replicas("file") == {"RENAMED": "proven"}


def test_only_the_rses_asked_for_are_recorded(kit: Kit, here: Rse, there: Rse) -> None:
    kit.rucio.upload(here, "file", b"content")
    kit.copy(here, there, "file")
    kit.run(rses="THERE")
    assert kit.events() == [("COPY", "THERE")]
    assert {row.rse_id for row in kit.outbox} == {here.id}
    kit.run(rses="HERE")
    assert kit.events() == [("COPY", "THERE"), ("CREATE", "HERE")]
