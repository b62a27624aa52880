"""A Rucio of two VOs: each with its own policy behind ours, the same names in both, and traces that never mix."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from recorder_kit import Kit
from rucio_trace_policy.database import GUARDED_JSON, PLUGIN
from rucio_trace_policy.tables import tables
from sqlalchemy import select

if TYPE_CHECKING:
    from rucio_trace_sandbox.embedded import EmbeddedRucio

PACKAGES = {
    "common": {"multi_vo": True},
    "policy": {"package-aaa": "rucio_trace_policy.vo.aaa", "package-bbb": "rucio_trace_policy.vo.bbb"},
    "traceability": {"policy_package-aaa": "vo_policy"},
}

DECIDE = """
from rucio.core.permission import has_permission
from rucio.common.types import InternalAccount
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session
for vo in "aaa", "bbb":
    for account in "bob", "alice":
        with db_session(DatabaseOperationType.READ) as session:
            result = has_permission(InternalAccount(account, vo=vo), "add_account", {}, session=session)
        print(vo, account, bool(result), result.message)
from rucio.common import schema
schema.load_schema_for_vo("aaa"), schema.load_schema_for_vo("bbb")
print(schema.schema_modules["aaa"].__name__, schema.schema_modules["bbb"].__name__)
from rucio.common.plugins import PolicyPackageAlgorithms as Algorithms
print(Algorithms._get_default_algorithm("scope", "aaa")("name", []), Algorithms._get_default_algorithm("scope", "bbb"))
"""

# What users of either VO do, with the accounts, scopes and RSEs that have the same names in both.
FILL = """
import sys, zlib
from pathlib import Path
from rucio.common.types import InternalAccount, InternalScope
from rucio.core import account, rse, scope as scopes, vo as vos
from rucio.core.replica import add_replicas
from rucio.db.sqla.constants import AccountType, DatabaseOperationType
from rucio.db.sqla.session import db_session
from rucio.rse import rsemanager
from rucio_trace_sandbox.storage import file_protocol
with db_session(DatabaseOperationType.WRITE) as session:
    account.add_account(InternalAccount("super_root"), AccountType.USER, "nobody@example.org", session=session)
for vo in "aaa", "bbb":
    content = f"the bytes of {vo}".encode()
    root, scope = InternalAccount("root", vo=vo), InternalScope("test", vo=vo)
    with db_session(DatabaseOperationType.WRITE) as session:
        vos.add_vo(vo, "a VO", "nobody@example.org", session=session)
        scopes.add_scope(scope, root, session=session)
        rse_id = rse.add_rse("DISK", vo=vo, session=session)
        rse.add_protocol(rse_id, file_protocol(Path(sys.argv[1]) / vo), session=session)
    info = rsemanager.get_rse_info(rse_id=rse_id)
    [pfn] = rsemanager.lfns2pfns(info, [{"scope": "test", "name": "file"}]).values()
    path = Path("/" + pfn.split("://")[1].split("/", 1)[1])
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    file = {"scope": scope, "name": "file", "bytes": len(content), "adler32": f"{zlib.adler32(content):08x}"}
    with db_session(DatabaseOperationType.WRITE) as session:
        add_replicas(rse_id, [file], root, session=session)
"""

SHOW = """
from rucio.common.types import InternalScope
from rucio.core.did import get_metadata
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session
for vo in "aaa", "bbb":
    with db_session(DatabaseOperationType.READ) as session:
        shown = get_metadata(InternalScope("test", vo=vo), "file", plugin="ALL", session=session)
    print(vo, shown["trace_status"], shown["trace_replicas"], shown["trace_hash"])
"""


def _run(rucio: EmbeddedRucio, code: str, *argv: object) -> list[str]:
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return rucio.home.run_python(code, *map(str, argv), PYTHONPATH=path).splitlines()


def test_each_vo_decides_by_its_own_policy(rucio_sqlite: EmbeddedRucio) -> None:
    rucio_sqlite.configure(**PACKAGES)
    assert _run(rucio_sqlite, DECIDE) == [
        "aaa bob False Bob may not.",
        "aaa alice True ",
        "bbb bob False ",
        "bbb alice False ",
        "vo_policy.schema rucio.common.schema.generic_multi_vo",
        "('site', 'name') None",
    ]


def test_the_advice_knows_a_package_for_each_vo(rucio_sqlite: EmbeddedRucio) -> None:
    code = "from rucio_trace_policy.database import _policy_advice; print(*_policy_advice(), sep=chr(10))"
    rucio_sqlite.configure(**PACKAGES)
    assert _run(rucio_sqlite, code) == [""]
    rucio_sqlite.configure(policy={"package-bbb": "vo_policy"})
    [advice] = _run(rucio_sqlite, code)
    assert "[policy] package-bbb is not rucio_trace_policy.vo.bbb, unless vo_policy calls" in advice


@pytest.mark.parametrize("package", ["nothing_of_this_name", "rucio_trace_policy.nothing"])
def test_a_package_that_is_not_there_stops_its_vo(rucio_sqlite: EmbeddedRucio, package: str) -> None:
    rucio_sqlite.configure(**PACKAGES | {"traceability": {"policy_package-bbb": package}})
    code = """
from rucio.common.exception import PolicyPackageNotFound
from rucio.core import permission
permission.load_permission_for_vo("aaa")
try:
    permission.load_permission_for_vo("bbb")
except PolicyPackageNotFound as error:
    print(error)
"""
    [said] = [line for line in _run(rucio_sqlite, code) if "package" in line]
    assert package in said


def test_the_same_names_in_two_vos_are_two_products(rucio: EmbeddedRucio, monkeypatch: pytest.MonkeyPatch) -> None:
    rucio.configure(**PACKAGES, metadata={"plugins": f"{PLUGIN},{GUARDED_JSON}"})
    monkeypatch.syspath_prepend(Path(__file__).parent)  # where the VO's own package lies
    kit = Kit(rucio)
    storage = rucio.folder / "storage"
    storage.mkdir()
    _run(rucio, FILL, storage)
    kit.run()
    statements = [stored.trace.statement for stored in kit.traces()]
    assert [(str(s.event), s.vo, s.did, s.rse) for s in statements] == [
        ("CREATE", "aaa", "test:file", "DISK"),
        ("CREATE", "bbb", "test:file", "DISK"),
    ]
    with rucio.engine.connect() as connection:
        replicas = connection.execute(select(tables(rucio.backend).replicas)).all()
    assert {(row.scope, row.rse, row.state) for row in replicas} == {
        ("test@aaa", "DISK", "proven"),
        ("test@bbb", "DISK", "proven"),
    }
    assert len({row.rse_id for row in replicas}) == 2
    hashes = {s.vo: s.hash for s in statements}
    assert _run(rucio, SHOW) == [f"{vo} GENUINE 1/1 {hashes[vo]}" for vo in ("aaa", "bbb")]
    kit.close()
