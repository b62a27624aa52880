"""RSEs and files of an embedded Rucio."""

from __future__ import annotations

import hashlib
import itertools
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from rucio.common.types import InternalAccount, InternalScope
    from sqlalchemy.orm import Session

    from .home import RucioHome
    from .xrootd import XRootD

__all__ = [
    "SCOPE",
    "VO",
    "Rse",
    "Storage",
    "Stored",
    "file_protocol",
    "ssh_protocol",
    "webdav_protocol",
    "xrootd_protocol",
]

SCOPE = "test"
VO = "def"
_NO_LIMIT = -1

_EVERYTHING = {
    domain: {"read": 1, "write": 1, "delete": 1, "third_party_copy_read": 1, "third_party_copy_write": 1}
    for domain in ("lan", "wan")
}
# Rucio's local protocol has no third-party copy of its own: the transfer tool does that.


@dataclass(frozen=True)
class Rse:
    """A storage element; `folder` is where its prefix lies on this machine (None: nowhere)."""

    id: str
    name: str
    folder: Path | None


@dataclass(frozen=True)
class Stored:
    """A replica that `Storage.upload` made; `path` is the file on this machine."""

    scope: str
    name: str
    rse: Rse
    path: Path
    bytes: int
    adler32: str
    md5: str

    @property
    def did(self) -> str:
        return f"{self.scope}:{self.name}"


def file_protocol(folder: Path) -> dict[str, Any]:
    """Rucio's protocol for a directory."""
    return {
        "scheme": "file",
        "hostname": "localhost",
        "port": 0,
        "prefix": f"{folder}/",
        "impl": "rucio.rse.protocols.posix.Default",
        "domains": _EVERYTHING,
    }


def xrootd_protocol(port: int, prefix: str, host: str = "127.0.0.1") -> dict[str, Any]:
    """Rucio's protocol for an XRootD server (loopback by number: third-party copy hangs with `localhost`)."""
    return {
        "scheme": "root",
        "hostname": host,
        "port": port,
        "prefix": f"/{prefix.rstrip('/')}/",
        "impl": "rucio.rse.protocols.xrootd.Default",
        "domains": _EVERYTHING,
    }


def webdav_protocol(port: int, prefix: str, **more: Any) -> dict[str, Any]:
    """Rucio's protocol for WebDAV over TLS on loopback; *more* replaces parts of it."""
    protocol = {
        "scheme": "davs",
        "hostname": "127.0.0.1",
        "port": port,
        "prefix": f"/{prefix.strip('/')}/",
        "impl": "rucio.rse.protocols.webdav.NoRename",
        "domains": _EVERYTHING,
    }
    return protocol | more


def ssh_protocol(port: int, folder: Path, user: str, scheme: str = "scp") -> dict[str, Any]:
    """Rucio's protocol for a folder behind SSH on loopback."""
    return {
        "scheme": scheme,
        "hostname": "127.0.0.1",
        "port": port,
        "prefix": f"{folder}/",
        "impl": "rucio.rse.protocols.ssh.Default",
        "domains": _EVERYTHING,
        "extended_attributes": {"user": user},
    }


class Storage:
    """What an embedded Rucio can do with RSEs; mixed into `EmbeddedRucio`."""

    home: RucioHome
    folder: Path
    vo: str
    root: InternalAccount
    scope: InternalScope

    if TYPE_CHECKING:

        def session(self) -> AbstractContextManager[Session]: ...

    def add_rse(
        self,
        name: str,
        protocol: Mapping[str, Any] | None = None,
        *,
        folder: Path | None = None,
        rse_type: str = "DISK",
        volatile: bool = False,
        staging_area: bool = False,
        deterministic: bool = True,
        **attributes: object,
    ) -> Rse:
        """Add an RSE whose *attributes* Rucio stores as RSE attributes; root may fill it."""
        from rucio.core import account_limit
        from rucio.core import rse as core
        from rucio.db.sqla.constants import RSEType

        with self.session() as session:
            rse_id = core.add_rse(
                name,
                vo=self.vo,
                rse_type=RSEType[rse_type],
                volatile=volatile,
                staging_area=staging_area,
                deterministic=deterministic,
                session=session,
            )
            if protocol is not None:
                core.add_protocol(rse_id, dict(protocol), session=session)
            for key, value in attributes.items():
                core.add_rse_attribute(rse_id, key, value, session=session)
            account_limit.set_local_account_limit(self.root, rse_id, _NO_LIMIT, session=session)
        return Rse(rse_id, name, folder)

    def add_posix_rse(self, name: str, folder: Path | None = None, **options: Any) -> Rse:
        """Add an RSE on a directory of this machine (a new one unless *folder* is given)."""
        folder = folder or self.folder / "rses" / name
        folder.mkdir(parents=True, exist_ok=True)
        return self.add_rse(name, file_protocol(folder), folder=folder, **options)

    def add_xrootd_rse(self, name: str, server: XRootD, prefix: str | None = None, **options: Any) -> Rse:
        """Add an RSE on *server*, whose files lie below *prefix* (by default a folder of the RSE's name)."""
        folder = server.make_folder(prefix or name)
        return self.add_rse(name, xrootd_protocol(server.port, f"/{prefix or name}"), folder=folder, **options)

    def rses(self) -> dict[str, Rse]:
        """The RSEs that are there, by name; their folders are not known to Rucio unless they are directories."""
        from rucio.core import rse as core

        with self.session() as session:
            listed = core.list_rses(session=session)
            protocols = {rse["id"]: core.get_rse_protocols(rse["id"], session=session)["protocols"] for rse in listed}
        prefixes = {
            rse_id: Path(protocol["prefix"])
            for rse_id, entries in protocols.items()
            for protocol in entries
            if protocol["scheme"] == "file"
        }
        return {rse["rse"]: Rse(rse["id"], rse["rse"], prefixes.get(rse["id"])) for rse in listed}

    def move_protocol(self, rse: Rse, port: int) -> None:
        """Tell Rucio that the XRootD server of *rse* listens elsewhere now."""
        from rucio.core import rse as core

        with self.session() as session:
            (protocol,) = core.get_rse_protocols(rse.id, session=session)["protocols"]
            if protocol["port"] != port:
                where = {"scheme": "root", "hostname": protocol["hostname"], "port": protocol["port"]}
                core.update_protocols(rse.id, **where, data={"port": port}, session=session)

    def set_attribute(self, rse: Rse, key: str, value: object) -> None:
        """Set an RSE attribute, whether it is there or not."""
        from rucio.core import rse as core

        with self.session() as session:
            if key in core.list_rse_attributes(rse.id, session=session):
                core.del_rse_attribute(rse.id, key, session=session)
            core.add_rse_attribute(rse.id, key, value, session=session)

    def connect(self, *rses: Rse) -> None:
        """Let the transfer tool copy from each of *rses* to each other."""
        from rucio.core.distance import add_distance

        with self.session() as session:
            for source, destination in itertools.permutations(rses, 2):
                add_distance(source.id, destination.id, distance=1, session=session)

    def add_rule(self, did: str, expression: str, **options: Any) -> str:
        """Ask for a copy of *did* on *expression*, for root; returns the rule's id."""
        from rucio.common.types import InternalScope
        from rucio.core.rule import add_rule

        scope, _, name = did.partition(":")
        asked: dict[str, Any] = {"copies": 1, "grouping": "DATASET", "weight": None, "lifetime": None, "locked": False}
        asked |= {"subscription_id": None, **options}
        dids = [{"scope": InternalScope(scope, vo=self.vo), "name": name}]
        with self.session() as session:
            return str(add_rule(dids, self.root, rse_expression=expression, session=session, **asked)[0])

    def replica_states(self, did: str) -> dict[str, str]:
        """What Rucio says of each replica of *did*: RSE → state's letter."""
        from rucio.db.sqla.models import RSE, RSEFileAssociation
        from sqlalchemy import select

        name = did.partition(":")[2]
        query = select(RSE.rse, RSEFileAssociation.state).join_from(RSEFileAssociation, RSE)
        with self.session() as session:
            found = session.execute(query.where(RSEFileAssociation.name == name)).all()
        return {rse: state.value for rse, state in found}

    def pfn_path(self, rse: Rse, name: str, scope: str | None = None) -> Path:
        """Where Rucio puts *name* on *rse*, as a path of this machine."""
        if rse.folder is None:
            raise ValueError(f"{rse.name}: has no folder on this machine")
        scope = scope or self.scope.external
        digest = hashlib.md5(f"{scope}:{name}".encode(), usedforsecurity=False).hexdigest()
        return rse.folder / scope.replace(".", "/") / digest[:2] / digest[2:4] / name

    def upload(self, rse: Rse, name: str, content: bytes, *, scope: InternalScope | None = None) -> Stored:
        """Store *content* and register it as `rucio upload` does: replica C, then the bytes, then A.

        The replica has no rule. On storage another account owns, the file becomes that account's.
        """
        from rucio.core import replica as core
        from rucio.db.sqla.constants import ReplicaState

        scope = scope or self.scope
        stored = Stored(
            scope.external, name, rse, self.pfn_path(rse, name, scope.external), len(content), *_checksums(content)
        )
        file: dict[str, Any] = {"scope": scope, "name": name, "bytes": stored.bytes}
        file |= {"adler32": stored.adler32, "md5": stored.md5}
        with self.session() as session:
            core.add_replicas(rse.id, [file | {"state": ReplicaState.COPYING}], self.root, session=session)
        put(rse, stored.path, content)
        with self.session() as session:
            available = {"rse_id": rse.id, "scope": scope, "name": name, "state": ReplicaState.AVAILABLE}
            core.update_replicas_states([available], session=session)
        return stored


def put(rse: Rse, path: Path, content: bytes) -> None:
    """Write a file below the RSE's folder, with the folder's owner."""
    if rse.folder is None:
        raise ValueError(f"{rse.name}: has no folder on this machine")
    owner = rse.folder.stat()
    missing = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if os.geteuid() == 0:
        for made in (path, *missing):
            os.chown(made, owner.st_uid, owner.st_gid)


def _checksums(content: bytes) -> tuple[str, str]:
    return f"{zlib.adler32(content):08x}", hashlib.md5(content, usedforsecurity=False).hexdigest()
