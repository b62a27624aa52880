"""A Rucio home: the folder that $RUCIO_HOME names, with `etc/rucio.cfg` in it."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PASSWORD", "USERNAME", "RucioHome", "claim_process"]

Sections = "Mapping[str, Mapping[str, object]]"

USERNAME = "ddmlab"
PASSWORD = "secret"  # noqa: S105 of a server that listens on loopback for some minutes

_ALEMBIC = """\
[alembic]
script_location = rucio.db.sqla:migrate_repo
sqlalchemy.url = {url}
[loggers]
keys = root
[handlers]
keys =
[formatters]
keys =
[logger_root]
level = WARN
handlers =
"""


class RucioHome:
    """`etc/rucio.cfg` of one Rucio server (or, without a database, of one client)."""

    def __init__(self, folder: Path, sections: Mapping[str, Mapping[str, object]]) -> None:
        self.folder = folder
        self.sections: dict[str, dict[str, str]] = {}
        (folder / "etc").mkdir(parents=True, exist_ok=True)
        self.configure(sections)

    @classmethod
    def server(cls, folder: Path, url: str, sections: Mapping[str, Mapping[str, object]] | None = None) -> RucioHome:
        """Write the home of a server (and daemons) whose database is *url*."""
        home = cls(folder, _server_sections(folder, url))
        (folder / "etc" / "alembic.ini").write_text(_ALEMBIC.format(url=url.replace("%", "%%")))
        home.configure(sections or {})
        return home

    @classmethod
    def client(cls, folder: Path, rest_url: str) -> RucioHome:
        """Write the home of a user of the server at *rest_url*: no database, so Rucio takes it for a client."""
        return cls(folder, {"client": client_section(folder, rest_url), "policy": _POLICY})

    @property
    def path(self) -> Path:
        return self.folder / "etc" / "rucio.cfg"

    def configure(self, sections: Mapping[str, Mapping[str, object]]) -> None:
        """Merge *sections* into rucio.cfg; None as a value removes the option."""
        for section, options in sections.items():
            merged = self.sections.setdefault(section, {})
            for option, value in options.items():
                if value is None:
                    merged.pop(option, None)
                else:
                    merged[option] = str(value)
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_dict(self.sections)
        with self.path.open("w") as file:
            parser.write(file)

    def environment(self, **extra: str) -> dict[str, str]:
        """The environment of a process that belongs to this home: ours, with this interpreter's scripts first."""
        scripts = str(Path(sys.executable).parent)
        path = os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)])
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RUCIO_")}
        return {**kept, "PATH": path, "RUCIO_HOME": str(self.folder), **extra}

    def run(
        self, *argv: str | os.PathLike[str], timeout: float = 120, **extra: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command here, its output captured; *extra* joins its environment. The caller judges its status."""
        return subprocess.run(
            argv, env=self.environment(**extra), capture_output=True, text=True, timeout=timeout, check=False
        )

    def run_python(self, code: str, *argv: str, timeout: float = 120, **extra: str) -> str:
        """Run *code* in a fresh interpreter of this home and return what it printed; its failure raises.

        For what Rucio decides while it is imported: policy package, database schema, plugins.
        """
        done = self.run(sys.executable, "-c", code, *argv, timeout=timeout, **extra)
        if done.returncode:
            raise AssertionError(f"python -c ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return str(done.stdout)

    def rucio(self, *argv: str | os.PathLike[str], timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run Rucio's own command line (1–3 s of imports a call: tests had better use its Python client)."""
        return self.run(str(Path(sys.executable).with_name("rucio")), *argv, timeout=timeout)


def claim_process(home: RucioHome) -> None:
    """Make this process one of *home*, before anything imports Rucio."""
    for key in [key for key in os.environ if key.startswith("RUCIO_") and not key.startswith("RUCIO_TRACE")]:
        del os.environ[key]
    os.environ["RUCIO_HOME"] = str(home.folder)


_POLICY: dict[str, object] = {
    "permission": "generic",
    "schema": "generic",
    "lfn2pfn_algorithm_default": "hash",
    "support": "nobody@example.org",
    "support_rucio": "nobody@example.org",
}


def client_section(folder: Path, rest_url: str) -> dict[str, object]:
    """`[client]` for the server at *rest_url*; tokens stay in this home, for each home has its own database."""
    return {
        "rucio_host": rest_url,
        "auth_host": rest_url,
        "auth_type": "userpass",
        "username": USERNAME,
        "password": PASSWORD,
        "account": "root",
        "request_retries": 1,
        "auth_token_file_path": folder / "token" / "auth_token",
    }


def _server_sections(folder: Path, url: str) -> dict[str, dict[str, object]]:
    return {
        "common": {"loglevel": "WARNING"},  # no `multi_vo`: Rucio takes any text there for true
        "database": {"default": url, "echo": 0, "pool_size": 10, "max_overflow": 20},
        "alembic": {"cfg": folder / "etc" / "alembic.ini"},
        "bootstrap": {
            "userpass_identity": USERNAME,
            "userpass_pwd": PASSWORD,
            "userpass_email": "nobody@example.org",
            "x509_identity": "",
            "gss_identity": "",
            "ssh_identity": "",
        },
        "policy": _POLICY,
        # A port where nothing listens: a memcached of this machine would share answers between databases.
        "cache": {"url": "127.0.0.1:1"},
        "client": client_section(folder, "http://127.0.0.1:1"),
        "conveyor": {"transfertool": "fts3", "cacert": "False", "allow_user_oidc_tokens": "False"},
    }
