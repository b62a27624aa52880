"""What tests of the command line share: a runner, and somebody who signs today."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from authority import Authority, Issued, pem_of
from click.testing import CliRunner

from rucio_trace.cli import cli

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def run(*arguments: object, config: Path | None = None, code: int | None = None) -> Result:
    """Run `rucio-trace` in this process; without *config* nothing is configured."""
    environment = {"RUCIO_TRACE_CONFIG": str(config) if config else "/dev/null"}
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], env=environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.output
    if code is not None:
        assert result.exit_code == code, result.output
    return result


def lines(result: Result) -> list[dict[str, Any]]:
    """The JSON objects on stdout, one a line."""
    return [json.loads(line) for line in result.stdout.splitlines()]


@dataclass(frozen=True)
class Party:
    """An authority and one of its signers, as files in a folder."""

    authority: Authority
    issued: Issued
    ca: Path
    key: Path
    certificate: Path

    @classmethod
    def in_folder(cls, folder: Path, name: str = "signer", **certificate: Any) -> Party:
        authority = Authority.root(f"{name} CA", since=NOW - 300 * DAY, until=NOW + 300 * DAY)
        certificate = {"since": NOW - DAY, "until": NOW + DAY, **certificate}
        issued = authority.issue(name, **certificate)
        files = {suffix: folder / f"{name}.{suffix}" for suffix in ("ca.pem", "key", "pem")}
        files["ca.pem"].write_bytes(authority.pem)
        files["key"].write_bytes(pem_of(issued.key))
        files["pem"].write_bytes(issued.chain_pem)
        return cls(authority, issued, files["ca.pem"], files["key"], files["pem"])

    def sign(self, *files: Path, code: int = 0, trace: Path | None = None, options: tuple[object, ...] = ()) -> bytes:
        result = run("sign", *files, "--key", self.key, "--cert", self.certificate, *options, code=code)
        if trace is not None:
            trace.write_bytes(result.stdout_bytes)
        return result.stdout_bytes
