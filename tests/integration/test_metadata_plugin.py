"""What traces say of a DID, through REST, the command line and filters, on both databases."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from rucio_trace_policy import hooks
from rucio_trace_policy.database import GUARDED_JSON, PLUGIN
from rucio_trace_policy.tables import tables
from sqlalchemy import insert, select, text

if TYPE_CHECKING:
    from rucio.client import Client
    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.rest import Rest

PROVEN_AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.fixture
def shown(rucio: EmbeddedRucio) -> EmbeddedRucio:
    """A Rucio with hooks and our metadata plugins, and an RSE."""
    hooks.install(rucio.engine)
    rucio.configure(metadata={"plugins": f"{PLUGIN},{GUARDED_JSON}"})
    rucio.add_posix_rse("DISK")
    return rucio


def add_file(name: str) -> None:
    from rucio.gateway.replica import add_replicas

    add_replicas("DISK", [{"scope": "test", "name": name, "bytes": 7, "adler32": "0bd80344"}], issuer="root")


def add_product(rucio: EmbeddedRucio, name: str, status: str = "GENUINE", **values: Any) -> None:
    """A file and its row as the recorder writes it."""
    add_file(name)
    ours = tables(rucio.backend)
    row = {"status": status, "proven": 1, "total": 2, "trace_id": "0b9d", "hash": "12" * 32, "signer": "ab" * 32}
    row |= {"hash_algorithm": "BLAKE3", "verified_at": PROVEN_AT, "attributes": "{}", "position": 1}
    with rucio.engine.begin() as connection:
        query = select(ours.outbox.c.generation).where(ours.outbox.c.name == name, ours.outbox.c.new_state == "A")
        generation = connection.scalars(query.order_by(ours.outbox.c.id.desc())).first()
        key = {"scope": "test", "name": name, "generation": generation}
        connection.execute(insert(ours.products).values(**key, **row | values))
        connection.execute(ours.outbox.delete())


def metadata(name: str, plugin: str = "ALL") -> dict[str, Any]:
    from rucio.gateway.did import get_metadata

    found = get_metadata("test", name, plugin=plugin)
    return {key: value for key, value in found.items() if key.lower().startswith("trace")}


def listed(filters: Any, **options: Any) -> list[str]:
    from rucio.gateway.did import list_dids

    groups = filters if isinstance(filters, list) else [filters]
    return sorted(list_dids("test", filters=groups, **{"did_type": "file"} | options))


# Shown ---------------------------------------------------------------------------------------------------------------


def test_a_proven_product_shows_its_keys(shown: EmbeddedRucio) -> None:
    add_product(shown, "file", attributes=json.dumps({"mission": "S2", "orbit": 122, "status": "FORGED"}))
    expected = {
        "trace_status": "GENUINE",
        "trace_replicas": "1/2",
        "trace_id": "0b9d",
        "trace_hash": "12" * 32,
        "trace_hash_algorithm": "BLAKE3",
        "trace_signer": "ab" * 32,
        "trace_verified_at": "2026-01-02T03:04:05.678901Z",
        "trace_mission": "S2",
        "trace_orbit": 122,
    }
    assert metadata("file") == metadata("file", "TRACEABILITY") == expected


def test_rest_and_command_line_show_them_beside_rucios_own(shown: EmbeddedRucio, rest: Rest) -> None:
    add_product(shown, "file")
    found = rest.root.get_metadata("test", "file", plugin="ALL")
    assert (found["trace_status"], found["bytes"]) == ("GENUINE", 7)
    done = rest.home.rucio("did", "metadata", "list", "--plugin", "ALL", "test:file")
    assert done.returncode == 0, done.stderr
    lines = {line.split(":")[0].strip(): line for line in done.stdout.splitlines()}
    assert "GENUINE" in lines["trace_status"]
    assert "7" in lines["bytes"]


def test_a_file_whose_trace_is_still_to_come_is_pending(shown: EmbeddedRucio) -> None:
    add_file("file")
    assert metadata("file") == {"trace_status": "PENDING"}


def test_a_name_deleted_and_uploaded_again_never_shows_the_old_status(shown: EmbeddedRucio) -> None:
    from rucio.core.replica import delete_replicas
    from rucio.core.rse import get_rse_id

    add_product(shown, "file")
    with shown.session() as session:
        rse_id = get_rse_id("DISK", session=session)
        delete_replicas(rse_id, [{"scope": shown.scope, "name": "file"}], session=session)
    add_file("file")
    assert metadata("file") == {"trace_status": "PENDING"}
    assert listed({"trace_status": "GENUINE"}) == []
    assert listed({"trace_status": "PENDING"}) == ["file"]
    assert listed({"trace_hash": "12" * 32}) == []


def test_files_older_than_the_hooks_and_containers_show_nothing(shown: EmbeddedRucio) -> None:
    from rucio.core.did import add_did
    from rucio.db.sqla.constants import DIDType

    add_file("file")
    with shown.session() as session:
        add_did(shown.scope, "container", DIDType.CONTAINER, shown.root, session=session)
        session.execute(text("UPDATE dids SET created_at = '2020-01-01 00:00:00.000000' WHERE name = 'file'"))
    assert metadata("file") == metadata("container") == metadata("no such name", "TRACEABILITY") == {}
    assert listed({"trace_status": "PENDING"}) == []


def test_an_old_file_is_pending_once_a_change_of_it_waits(shown: EmbeddedRucio) -> None:
    add_file("file")
    with shown.session() as session:
        session.execute(text("UPDATE dids SET created_at = '2020-01-01 00:00:00.000000'"))
        session.execute(text("UPDATE replicas SET state = 'U'"))
    assert metadata("file") == {"trace_status": "PENDING"}
    assert listed({"trace_status": "PENDING"}) == ["file"]


# Found ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def many(shown: EmbeddedRucio) -> EmbeddedRucio:
    """Four products and a file whose trace is to come."""
    rows: dict[str, dict[str, Any]] = {
        "a": {"hash": "1" * 64, "attributes": json.dumps({"mission": "S2A_MSI", "orbit": 9})},
        "b": {"hash": "2" * 64, "attributes": json.dumps({"mission": "S2B%MSI", "orbit": 122})},
        "c": {"status": "TAMPERED", "verified_at": datetime(2025, 1, 1, tzinfo=UTC), "attributes": None},
        "d": {"status": "DEGRADED", "attributes": json.dumps({"cloud": "12.5", "orbit": "none"})},
    }
    for name, values in rows.items():
        add_product(shown, name, **values)
    add_file("e")
    return shown


FINDINGS: list[tuple[Any, str]] = [
    ({"trace_status": "GENUINE"}, "ab"),
    ({"trace_status.ne": "GENUINE"}, "cde"),
    ({"trace_status": "*E*D*"}, "cde"),
    ({"TRACE_STATUS": "TAMPERED"}, "c"),
    ({"trace_hash": "1" * 64}, "a"),
    ({"trace_hash": "1*"}, "acd"),
    ({"trace_hash.ne": "1*"}, "b"),
    ({"trace_verified_at.lt": "2025-06-01"}, "c"),
    ({"trace_verified_at.gte": "2026-01-02T03:04:05.678901Z"}, "abd"),
    ({"trace_verified_at.gt": "2026-01-02T03:04:05.678901+00:00"}, ""),
    ({"trace_verified_at.gte": "2024-01-01", "trace_verified_at.lte": "2025-06-01"}, "c"),
    ({"trace_mission": "S2A_MSI"}, "a"),
    ({"trace_mission": "S2*"}, "ab"),
    ({"trace_mission": "S2_%*"}, ""),
    ({"trace_mission": "S2B%*"}, "b"),
    ({"trace_orbit": "122"}, "b"),
    ({"trace_orbit": 122}, "b"),
    ({"trace_orbit.gt": "9"}, "b"),
    ({"trace_orbit.gte": 9}, "ab"),
    ({"trace_cloud.lt": "12.6"}, "d"),
    ({"trace_nothing": "*"}, ""),
    ({"trace_replicas": "1/2", "name": "b"}, "b"),
    ({"trace_status": "*", "name": "*"}, "abcde"),
    ([{"trace_status": "TAMPERED"}, {"trace_hash": "2" * 64}], "bc"),
]


def test_filters_find_by_equality_comparison_and_wildcard(many: EmbeddedRucio) -> None:
    found = [(filters, "".join(listed(copy.deepcopy(filters)))) for filters, _ in FINDINGS]
    assert found == FINDINGS


def test_a_filter_reaches_through_rest_with_types_lengths_and_limits(many: EmbeddedRucio, rest: Rest) -> None:
    client = rest.root
    found = list(client.list_dids("test", [{"trace_status": "GENUINE"}], did_type="all", long=True))
    assert found == [
        {"scope": "test", "name": name, "did_type": "FILE", "bytes": 7, "length": None} for name in ("a", "b")
    ]
    assert list(client.list_dids("test", [{"trace_status": "*"}])) == ["a", "b", "c", "d", "e"]
    assert list(client.list_dids("test", [{"trace_status": "*"}], did_type="dataset")) == []
    done = rest.home.rucio("did", "list", "--filter", "trace_status=TAMPERED", "--short", "test:*")
    assert done.stdout.split() == ["test:c"], done.stderr


def test_limit_and_offset_page_through_a_filters_files(many: EmbeddedRucio) -> None:
    pages = [listed({"trace_status": "*"}, limit=2, offset=offset) for offset in (0, 2, 4)]
    assert pages == [["a", "b"], ["c", "d"], ["e"]]


UNANSWERABLE: list[dict[str, Any]] = [
    {"trace_status.like": "G"},
    {"trace_status.gt": "G*"},
    {"trace_verified_at.gt": "yesterday"},
    {"trace_status": None},
    {"trace_status": "GENUINE", "bytes": 7},
    {'trace_x"y': "1"},
    {"trace_status": "GENUINE", "type": "nonsense"},
]


def test_a_filter_that_cannot_be_answered_is_refused_by_name(many: EmbeddedRucio) -> None:
    from rucio.common.exception import DIDFilterSyntaxError, InvalidMetadata

    for filters in UNANSWERABLE:
        with pytest.raises((DIDFilterSyntaxError, InvalidMetadata)):
            listed(copy.deepcopy(filters))


# Guarded -------------------------------------------------------------------------------------------------------------


def test_nobody_writes_or_deletes_a_trace_key(shown: EmbeddedRucio, rest: Rest) -> None:
    add_product(shown, "file")
    before = metadata("file")
    for key in ("trace_status", "TRACE_Status", "trace_anything"):
        _is_refused(rest.root, key)
    assert metadata("file") == before
    with shown.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM did_meta")) == 0


def _is_refused(client: Client, key: str) -> None:
    from rucio.common.exception import InvalidMetadata, RucioException

    with pytest.raises(InvalidMetadata, match="read-only"):
        client.set_metadata("test", "file", key, "GENUINE")
    with pytest.raises(InvalidMetadata, match="read-only"):
        client.set_metadata_bulk("test", "file", {key: "GENUINE"})
    with pytest.raises(RucioException, match="read-only"):
        client.set_dids_metadata_bulk([{"scope": "test", "name": "file", "meta": {key: "GENUINE"}}])
    with pytest.raises(RucioException, match="read-only"):
        client.add_did("test", "dataset", "DATASET", meta={key: "GENUINE"})
    with pytest.raises(RucioException, match="ReadOnlyKey"):
        client.delete_metadata("test", "file", key)


def test_a_key_written_before_we_came_does_not_win(shown: EmbeddedRucio) -> None:
    add_product(shown, "file", status="TAMPERED")
    forged = json.dumps({"trace_status": "GENUINE", "Trace_Mission": "S2", "color": "blue"})
    with shown.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO did_meta (scope, name, did_type, meta, created_at, updated_at) "
            f"VALUES ('test', 'file', 'F', '{forged}', '2026-01-01', '2026-01-01')"
        )
    assert metadata("file")["trace_status"] == "TAMPERED"
    assert "Trace_Mission" not in metadata("file")
    assert metadata("file", "JSON") == {}
    assert listed({"trace_status": "GENUINE"}) == []
    assert len(hooks.status(shown.engine).forged_keys) == 2


def test_rucios_own_json_metadata_works_as_before(rucio_postgresql: EmbeddedRucio) -> None:
    from rucio.gateway.did import get_metadata, set_metadata

    rucio = rucio_postgresql
    hooks.install(rucio.engine)
    rucio.configure(metadata={"plugins": f"{PLUGIN},{GUARDED_JSON}"})
    rucio.add_posix_rse("DISK")
    add_product(rucio, "file")
    set_metadata("test", "file", "color", "blue", issuer="root")
    found = get_metadata("test", "file", plugin="ALL")
    assert (found["color"], found["trace_status"]) == ("blue", "GENUINE")
    assert get_metadata("test", "file", plugin="JSON") == {"color": "blue"}
    assert listed({"color": "blue"}) == ["file"]


# Asked by policies ---------------------------------------------------------------------------------------------------


def test_a_policy_can_ask_whether_a_file_is_proven(shown: EmbeddedRucio) -> None:
    from rucio_trace_policy.provenance import ProvenanceRefuted, ProvenanceUnproven, check_provenance

    for name, status in (("good", "GENUINE"), ("bad", "TAMPERED"), ("old", "OBSOLETE")):
        add_product(shown, name, status=status)
    add_file("new")
    with shown.session() as session:
        assert check_provenance(shown.scope, "good", session=session) == "GENUINE"
        assert check_provenance(shown.scope, "old", session=session, accepted={"OBSOLETE"}) == "OBSOLETE"
        for name in ("bad", "old"):
            with pytest.raises(ProvenanceRefuted, match=f"test:{name}"):
                check_provenance(shown.scope, name, session=session)
        for name in ("new", "nothing of this name"):
            with pytest.raises(ProvenanceUnproven, match=f"test:{name}"):
                check_provenance(shown.scope, name, session=session)
        with pytest.raises(ProvenanceUnproven):
            check_provenance(shown.scope, "unknown", session=session, accepted=())
