"""Our policy package as Rucio's own loaders find it, alone and around a site's own."""

from __future__ import annotations

import configparser
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rucio_trace_policy import hooks
from rucio_trace_policy.database import GUARDED_JSON, PLUGIN, RUCIO_JSON, plugin_advice

if TYPE_CHECKING:
    from rucio_trace_sandbox.embedded import EmbeddedRucio

FRAGMENT = Path(__file__).parents[2] / "etc" / "rucio.cfg.fragment"
SITE = {"policy": {"package": "rucio_trace_policy"}, "traceability": {"policy_package": "site_policy"}}


def _ask(rucio: EmbeddedRucio, code: str, *packages: Path) -> list[str]:
    """What *code* prints in a fresh interpreter, where Rucio loads everything anew."""
    path = os.pathsep.join(str(folder) for folder in (Path(__file__).parent, *packages))
    return rucio.home.run_python(code, PYTHONPATH=path).splitlines()


def test_rucio_loads_the_package_and_falls_back_to_its_own_rules(rucio_sqlite: EmbeddedRucio) -> None:
    rucio_sqlite.configure(policy={"package": "rucio_trace_policy"})
    code = """
from rucio.core import permission
print(permission.permission_modules["def"].__name__)
from rucio_trace_policy.permission import decider
print(decider("").__name__)
from rucio.common import schema
print(schema.schema_modules["def"].__name__)
import rucio_trace_policy
print(rucio_trace_policy.get_algorithms())
"""
    assert _ask(rucio_sqlite, code) == [
        "rucio_trace_policy.permission",
        "rucio.core.permission.generic",
        "rucio.common.schema.generic",
        "{}",
    ]


def test_rucio_has_nothing_to_warn_about(rucio_sqlite: EmbeddedRucio) -> None:
    rucio_sqlite.configure(policy={"package": "rucio_trace_policy"})
    done = rucio_sqlite.home.run(sys.executable, "-c", "import rucio.common.schema, rucio.core.permission")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_sites_own_package_keeps_its_permissions_schemas_and_algorithms(rucio_sqlite: EmbeddedRucio) -> None:
    rucio_sqlite.configure(**SITE)
    code = """
from rucio_trace_policy.permission import decider
from rucio.core import permission
print(decider("").__name__)
from rucio.common import schema
print(schema.schema_modules["def"].__name__, schema.get_schema_value("SCOPE_LENGTH"))
from rucio.common.utils import extract_scope
from rucio.common.plugins import PolicyPackageAlgorithms as Algorithms
class Scopes(Algorithms): pass
Scopes()
print(Algorithms._get_one_algorithm("scope", "site")("name", []))
print(Algorithms._get_default_algorithm("scope")("name", []), Algorithms._get_default_algorithm("lfn2pfn"))
"""
    assert _ask(rucio_sqlite, code) == [
        "site_policy.permission",
        "site_policy.schema 17",
        "('site', 'name')",
        "('site', 'name') None",
    ]


def test_a_decision_is_the_sites_and_its_silence_is_rucios(rucio_sqlite: EmbeddedRucio) -> None:
    rucio_sqlite.configure(**SITE)
    hooks.install(rucio_sqlite.engine)
    code = """
from rucio.core.permission import has_permission
from rucio.common.types import InternalAccount
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session
for account in "root", "alice", "bob":
    for action in "add_replicas", "add_account", "reduce_rule", "add_rse":
        with db_session(DatabaseOperationType.READ) as session:
            kwargs = {"rse": "DISK", "rule_id": "0" * 32}
            result = has_permission(InternalAccount(account), action, kwargs, session=session)
        print(account, action, bool(result), result.message)
"""
    assert _ask(rucio_sqlite, code) == [
        "root add_replicas True ",
        "root add_account True ",
        "root reduce_rule True ",
        "root add_rse True ",
        "alice add_replicas True ",
        "alice add_account True ",
        "alice reduce_rule False ",
        "alice add_rse False ",
        "bob add_replicas False Bob may not.",
        "bob add_account False Bob may not.",
        "bob reduce_rule False ",
        "bob add_rse False ",
    ]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (None, "PolicyPackageNotFound"),
        ("import nothing_of_this_name", "PolicyPackageNotFound"),
        ("from os import nothing_of_this_name", "ErrorLoadingPolicyPackage"),
        ("SUPPORTED_VERSION = '<41'", "PolicyPackageVersionError"),
    ],
)
def test_a_site_package_that_cannot_be_loaded_stops_the_server_as_without_us(
    rucio_sqlite: EmbeddedRucio, folder: Path, source: str | None, error: str
) -> None:
    if source is not None:
        (folder / "broken_policy.py").write_text(source)
    code = """
try:
    from rucio.core import permission
except Exception as error:
    print(type(error).__name__)
"""
    rucio_sqlite.home.configure({"policy": {"package": "broken_policy"}})
    assert _ask(rucio_sqlite, code, folder) == [error]
    rucio_sqlite.home.configure(
        {"policy": {"package": "rucio_trace_policy"}, "traceability": {"policy_package": "broken_policy"}}
    )
    assert _ask(rucio_sqlite, code, folder) == [error]


def test_a_site_package_may_call_ours_instead(rucio: EmbeddedRucio, folder: Path) -> None:
    hooks.install(rucio.engine)
    rucio.add_posix_rse("DISK")
    package = folder / "calling_policy"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "permission.py").write_text(
        "from rucio_trace_policy.permission import tag_transaction\n"
        "def has_permission(issuer, action, kwargs, *, session):\n"
        "    tag_transaction(session, issuer, action, kwargs)\n"
        "    return True\n"
    )
    rucio.home.configure({"policy": {"package": "calling_policy"}})
    code = """
from rucio.gateway.replica import add_replicas
add_replicas("DISK", [{"scope": "test", "name": "file", "bytes": 1}], issuer="root")
from rucio.db.sqla.session import get_engine
from rucio_trace_policy.tables import tables
from sqlalchemy import select
engine = get_engine()
outbox = tables(engine.dialect.name).outbox
with engine.connect() as connection:
    print(connection.execute(select(outbox.c.account, outbox.c.action)).all())
"""
    assert _ask(rucio, code, folder) == ["[('root', 'add_replicas')]"]


def test_importing_the_package_brings_nothing_of_the_server(rucio_sqlite: EmbeddedRucio) -> None:
    code = """
import sys, rucio_trace_policy
print([name for name in sys.modules if name.startswith(("rucio.db", "rucio.core", "sqlalchemy"))])
"""
    client = rucio_sqlite.home.client(rucio_sqlite.folder / "client", "http://127.0.0.1:1")
    assert client.run_python(code).splitlines() == ["[]"]


def test_the_fragment_of_rucio_cfg_is_what_rucio_loads(rucio: EmbeddedRucio) -> None:
    fragment = configparser.ConfigParser(interpolation=None)
    fragment.read_string(FRAGMENT.read_text())
    rucio.home.configure({name: dict(fragment[name]) for name in fragment.sections()})
    code = """
from rucio.core import permission, did_meta_plugins
print(permission.permission_modules["def"].__name__)
print([type(plugin).__name__ for plugin in did_meta_plugins.METADATA_PLUGIN_MODULES])
from rucio_trace_policy.database import advice
print(advice())
"""
    assert _ask(rucio, code) == [
        "rucio_trace_policy.permission",
        "['DidColumnMeta', 'TraceabilityDidMeta', 'GuardedJSONDidMeta']",
        "[]",
    ]


@pytest.mark.parametrize(
    ("plugins", "warning"),
    [
        ([PLUGIN, GUARDED_JSON], None),
        ([PLUGIN], None),
        ([PLUGIN, "site.Plugin", PLUGIN], None),
        ([RUCIO_JSON], "lacks"),
        ([PLUGIN, f" {GUARDED_JSON}"], "spaces"),
        ([GUARDED_JSON, PLUGIN], "must come first"),
        ([PLUGIN, RUCIO_JSON], "older trace_ keys of anybody win"),
        ([PLUGIN, "site.Plugin"], "once more at the end"),
    ],
)
def test_a_list_of_metadata_plugins_that_lets_others_speak_is_named(plugins: list[str], warning: str | None) -> None:
    found = plugin_advice(plugins)
    assert (not found) if warning is None else (len(found) == 1 and warning in found[0])
