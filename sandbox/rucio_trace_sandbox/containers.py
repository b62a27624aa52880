"""What `docker/compose.yaml` needs once: secrets and keys, then Rucio's configuration and database.

`python -m rucio_trace_sandbox.containers keys` runs before any server, `… setup` beside the database. Both may be
repeated. Everything lies below one folder, whose parts are volumes, so that each service sees its own part only.
The keys are thrown away with the volumes; the authority's own key is never written down.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .home import USERNAME, RucioHome, claim_process
from .pki import SandboxAuthority

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["keys", "main", "setup"]

FOLDER = Path("/federation")
SCOPE = "eo"
SITES = ("a", "b")
PRODUCER = "PRODUCER"
# The roles of the database: Rucio, the trace store, and whoever only reads that.
ROLES = ("rucio", "traces", "reader")

_COMMON = """\
[instance]
name = "compose"

[trust]
federation = "../trust/federation.toml"

[store]
url = "postgresql://{role}@postgres/traces"
password_file = "{password_file}"
"""
_RECORDER = """
[recorder]
site = "SITE-{site}"
rses = "site=SITE-{site}"
key = "SITE-{site}.key.pem"
certificate = "SITE-{site}.pem"
accounts_key = "accounts.key"
"""
_PRODUCER = f"""
[producer]
site = "{PRODUCER}"
key = "{PRODUCER}.key.pem"
certificate = "{PRODUCER}.pem"
"""


def main(argv: list[str]) -> int:
    match argv:
        case ["keys"]:
            keys(FOLDER)
        case ["setup"]:
            setup(FOLDER)
        case _:
            print("usage: python -m rucio_trace_sandbox.containers keys | setup", file=sys.stderr)  # noqa: T201
            return 2
    return 0


def keys(folder: Path) -> None:
    """Make every secret, the authority and the keys of its members; those that are there stay."""
    done = folder / "database" / "done"
    if done.exists():
        return
    for name in (*ROLES, "broker", "root"):
        _write_secret(_secret_file(folder, name), secrets.token_urlsafe(24))
    (folder / "broker" / "credentials.properties").write_text(f"password={_secret(folder, 'broker')}\n")
    authority = SandboxAuthority(folder / "trust")
    for site in SITES:
        name, own = f"SITE-{site.upper()}", folder / f"site-{site}"
        _hand_over(authority, name, own, rses=[f"XRD-{site.upper()}"], create=[SCOPE], revoke=[SCOPE])
        _write_secret(own / "accounts.key", secrets.token_urlsafe(24))
        _write_secret(own / "store.password", _secret(folder, "traces"))
    _hand_over(authority, PRODUCER, folder / "client", rses=[], create=[SCOPE], obsolete=[SCOPE], revoke=[SCOPE])
    _write_secret(folder / "client" / "store.password", _secret(folder, "reader"))
    done.touch()


def setup(folder: Path) -> None:
    """Write the configuration of every service, build Rucio's database, and install the hooks."""
    home = _server_home(folder)
    for site in SITES:
        _recorder_home(folder, site)
    _client_home(folder)
    _write_settings(folder)
    claim_process(home)
    _build_database(home, folder)

    from rucio_trace_policy import hooks
    from rucio_trace_policy.database import open_database

    engine, schema = open_database()
    hooks.install(engine, schema)


def _secret_file(folder: Path, name: str) -> Path:
    owner = {"broker": "broker", "root": "client"}.get(name, "database")
    return folder / owner / f"{name}.password"


def _secret(folder: Path, name: str) -> str:
    return _secret_file(folder, name).read_text()


def _write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _hand_over(authority: SandboxAuthority, name: str, folder: Path, **rights: Any) -> None:
    """Admit a member, whose key then lies in its own folder alone."""
    member = authority.admit(name, **rights)
    for file in (member.key, member.certificate):
        shutil.move(file, folder / file.name)


def _database_url(folder: Path) -> str:
    return f"postgresql+psycopg://rucio:{_secret(folder, 'rucio')}@postgres/rucio"


def _server_home(folder: Path) -> RucioHome:
    sections: Mapping[str, Mapping[str, object]] = {
        "common": {"loglevel": "INFO"},
        "bootstrap": {"userpass_pwd": _secret(folder, "root")},
        "client": {"password": None, "username": None},  # servers and daemons are nobody's client
        "policy": {"package": "rucio_trace_policy"},
        "metadata": {
            "plugins": "rucio_trace_policy.metadata.TraceabilityDidMeta,rucio_trace_policy.metadata.GuardedJSONDidMeta"
        },
        "hermes": {"services_list": "activemq"},
        "messaging-hermes": {
            "brokers": "activemq",
            "use_ssl": False,
            "port": 61613,
            "nonssl_port": 61613,
            "username": "rucio",
            "password": _secret(folder, "broker"),
            "destination": "/topic/rucio.events",
            "voname": "def",
            "email_from": "nobody@example.org",
            "send_email": False,
        },
    }
    return RucioHome.server(folder / "server", _database_url(folder), sections)


def _recorder_home(folder: Path, site: str) -> None:
    """What a recorder needs to know of Rucio: its database."""
    nothing = {"client": {"password": None, "username": None}, "bootstrap": {"userpass_pwd": None}}
    home = RucioHome.server(folder / f"site-{site}", _database_url(folder), nothing | {"common": {"loglevel": "INFO"}})
    (home.folder / "etc" / "alembic.ini").unlink()  # it migrates nothing


def _client_home(folder: Path) -> None:
    home = RucioHome.client(folder / "client", "http://rucio:8080")
    # Its own folder is read-only where it is used.
    own = {"username": USERNAME, "password": _secret(folder, "root"), "auth_token_file_path": "/tmp/token"}  # noqa: S108
    home.configure({"client": own})


def _write_settings(folder: Path) -> None:
    for site in SITES:
        own = _COMMON.format(role="traces", password_file="store.password")  # noqa: S106 the name of a file
        (folder / f"site-{site}" / "rucio-trace.toml").write_text(own + _RECORDER.format(site=site.upper()))
    reading = _COMMON.format(role="reader", password_file="store.password")  # noqa: S106
    (folder / "client" / "rucio-trace.toml").write_text(reading + _PRODUCER)
    # Rucio's server holds a producer's traces against the federation file; it needs no store.
    (folder / "server" / "rucio-trace.toml").write_text(_COMMON.partition("\n[store]")[0])


def _build_database(home: RucioHome, folder: Path) -> None:
    """Bring the database to where it should be, wherever an earlier attempt was broken off."""
    from rucio.common.exception import Duplicate
    from rucio.common.types import InternalAccount
    from rucio.core.account import account_exists
    from rucio.core.scope import add_scope
    from rucio.core.vo import vo_exists
    from rucio.db.sqla.util import build_database, create_base_vo, create_root_account

    from .embedded import EmbeddedRucio
    from .storage import VO, xrootd_protocol

    rucio = EmbeddedRucio(home, _database_url(folder), folder, SCOPE)
    with contextlib.redirect_stdout(sys.stderr):
        build_database()
    with rucio.session() as session:
        has_vo = vo_exists(VO, session=session)
    if not has_vo:
        create_base_vo()
    with rucio.session() as session:
        has_root = account_exists(InternalAccount("root", vo=VO), session=session)
    if not has_root:
        create_root_account()
    with contextlib.suppress(Duplicate), rucio.session() as session:
        add_scope(rucio.scope, rucio.root, session=session)
    known = rucio.rses()
    for site in SITES:
        name = f"XRD-{site.upper()}"
        if name not in known:
            attributes = {"site": f"SITE-{site.upper()}", "fts": "http://fts:8446"}
            known[name] = rucio.add_rse(
                name, xrootd_protocol(1094, "/rucio", f"xrd-{site}.rucio-trace.example"), **attributes
            )
    with contextlib.suppress(Duplicate):
        rucio.connect(*known.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
