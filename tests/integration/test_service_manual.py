"""What docs/operators.md says of the trace service is so: its commands, its settings, its unit, its proxy, its TLS."""

from __future__ import annotations

import base64
import configparser
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from click.testing import CliRunner
from rucio_trace_sandbox.processes import Server, first_user, free_port, give, program, wait_until
from rucio_trace_sandbox.webdav import listens
from samples import batch, digest, line, product, trace
from service_kit import address, body, get, serving
from service_kit import program as rucio_trace

from rucio_trace.batch import write_lines
from rucio_trace.cli import cli
from rucio_trace.cli.serve import serve
from rucio_trace.config import Settings
from rucio_trace.envelope import to_json
from rucio_trace.service.tokens import Tokens
from rucio_trace.statement import Event

if TYPE_CHECKING:
    from rucio_trace_sandbox.postgres import PostgresCluster
    from rucio_trace_sandbox.tls import LoopbackTls

ROOT = Path(__file__).parents[2]


def blocks(kind: str) -> list[str]:
    """The section's examples of this kind."""
    text = (ROOT / "docs/operators.md").read_text()
    section = re.search(r"^## Trace service\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert section is not None
    return re.findall(rf"```{kind}\n(.*?)```", section[1], re.DOTALL)


def test_the_settings_of_the_manual_load() -> None:
    (text,) = blocks("toml")
    settings = Settings.parse(text, Path("/etc/rucio-trace/rucio-trace.toml"))
    assert settings.service.tokens == Path("/var/lib/rucio-trace/tokens.json")


def test_the_commands_and_the_proxy_of_the_manual_work(folder: Path, tls: LoopbackTls) -> None:
    (commands, *_), (proxy,) = blocks("sh"), blocks("nginx")
    port = free_port()
    (folder / "trace.json").write_bytes(body([trace()]))
    tokens = Tokens(folder / "tokens.json")
    with serving(folder, f"sqlite:///{folder}/traces.db") as running:
        proxy = proxy.replace("listen 443", f"listen 127.0.0.1:{port}").replace("traces.example.org", "localhost")
        proxy = proxy.replace("http://127.0.0.1:8085", running.url)
        for suffix, file in (("pem", tls.certificate), ("key", tls.key)):
            shutil.copy(file, folder / f"traces.{suffix}")
            proxy = proxy.replace(f"/etc/ssl/traces.{suffix}", str(folder / f"traces.{suffix}"))
        with _nginx(folder, proxy, port):
            environment = os.environ | {
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "RUCIO_TRACE_CONFIG": str(folder / "rucio-trace.toml"),
                "CURL_CA_BUNDLE": str(tls.ca),
            }
            for command in commands.splitlines():
                here = command.replace("traces.example.org", f"localhost:{port}")
                done = subprocess.run(  # noqa: S602 its purpose
                    here, shell=True, env=environment, cwd=folder, capture_output=True, text=True
                )
                assert done.returncode == 0, (here, done.stdout, done.stderr)
                if command.startswith("curl"):
                    assert '"stored":1' in done.stdout
                    token = (folder / "site-a.token").read_text().strip()
                    assert tokens(token)
            assert tokens(token) is None, "the last command revokes it"
            url, context = f"https://localhost:{port}", ssl.create_default_context(cafile=str(tls.ca))
            assert get(f"{url}/ready", verify=context).json() == {"status": "ready"}
            answer = get(f"{url}/openapi.json", verify=context)
            assert answer.headers["content-encoding"] == "gzip"


def _nginx(folder: Path, site: str, port: int) -> Server:
    user = first_user("www-data", "nobody")
    run = folder / "nginx"
    (run / "tmp").mkdir(parents=True)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = " ".join(f"{kind}_temp_path {run}/tmp;" for kind in kinds)
    head = f"daemon off; worker_processes 1; pid {run}/pid; error_log stderr; events {{}}"
    (run / "conf").write_text(f"{head}\nhttp {{\naccess_log off; {paths}\n{site}\n}}\n")
    give(run, user)
    for file in ("traces.pem", "traces.key"):
        (folder / file).chmod(0o644)
    argv = [program("nginx", "nginx-light"), "-p", run, "-c", run / "conf", "-e", "stderr"]
    server = Server("nginx", argv, log=run / "log", user=user)
    server.wait_until_ready(lambda: listens(port))
    return server


def test_a_dump_is_restored_by_the_commands_of_the_manual(folder: Path, postgres: PostgresCluster) -> None:
    _, back_up, restore = blocks("sh")
    (folder / "backups").mkdir()
    programs = ":".join(map(str, Path("/usr/lib/postgresql").glob("*/bin")))
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "PGHOST": str(postgres.folder), "PGUSER": "postgres"}

    def run(commands: str) -> None:
        here = commands.replace("/var/lib/rucio-trace", str(folder)).replace("/var/backups", f"{folder}/backups")
        done = subprocess.run(["sh", "-ec", here], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (here, done.stdout, done.stderr)

    key, lines = product(), [line(product())]
    verify = {"trace": to_json(batch(lines)), "list": base64.b64encode(write_lines(lines)).decode()}
    made, later = [to_json(trace(Event.CREATE, key)), to_json(trace(key=key)), verify], trace(key=key)

    def told(client: httpx.Client) -> list[Any]:
        """All that is known of the product, found by its name, by a word and by its digest."""
        asked = {"items": [{"digest": digest(key.name), "name": key.name}]}
        verdict = client.post("/api/v2/verdicts", json=asked).json()["verdicts"][0]["verdict"]
        searches = ({"did": key.did}, {"name": key.name}, {"text": key.name})
        answers = [client.get("/api/v2/traces", params=search).json() for search in searches]
        return [verdict, client.get("/api/v2/history", params={"did": key.did}).json(), *answers]

    try:
        run("createuser traces; createdb --owner traces traces")
        with serving(folder, postgres.url("traces", "traces")) as running:
            token = running.token()
            with running.client(token) as client:
                assert client.post("/api/v2/traces", json=made).json()["stored"] == 3
                wait_until(lambda: len(told(client)[-1]["traces"]) == 2, "its words")
                before = told(client)
                run(back_up)
                assert client.post("/api/v2/traces", content=body([later])).json()["stored"] == 1
        (folder / "tokens.json").unlink()
        run(restore)
        with serving(folder, postgres.url("restored", "traces")) as running, running.client(token) as client:
            assert before[0] == "GENUINE"
            assert before[1]["products"][0]["lines"]
            assert told(client) == before
            assert client.get(f"/api/v2/traces/{later.id}").status_code == 404
            assert client.get("/api/v2/changes", params={"after": 4}).status_code == 410
            answer = client.post("/api/v2/traces", content=body([later])).json()
            assert (answer["stored"], answer["results"][0]["position"]) == (1, 4)
    finally:
        for database in ("traces", "restored"):
            postgres.drop(database)
        run("dropuser --if-exists traces")


def test_it_speaks_tls_itself(tmp_path: Path, tls: LoopbackTls) -> None:
    own = {"certificate": str(tls.certificate), "key": str(tls.key), "address": "localhost", "workers": 2}
    with serving(tmp_path, f"sqlite:///{tmp_path}/t.db", **own) as running:
        assert running.url.startswith("https://localhost:")
        context = ssl.create_default_context(cafile=str(tls.ca))
        with httpx.Client(base_url=running.url, verify=context, timeout=60) as client:
            assert client.get("/health").json() == {"status": "running"}
        with pytest.raises(httpx.TransportError):
            get(running.url.replace("https:", "http:") + "/health")


def test_the_unit_starts_it_with_options_it_has(folder: Path) -> None:
    unit = ROOT / "etc/rucio-trace-serve.service"
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit.read_text())
    command, option, _, name, *arguments = shlex.split(parser["Service"]["ExecStart"])
    assert (Path(command).name, option, name) == ("rucio-trace", "--config", "serve")
    serve.make_context("serve", arguments)
    if shutil.which("systemd-analyze"):
        copy = folder / unit.name
        copy.write_text(unit.read_text().replace(command, shutil.which("true") or command))
        checked = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True)
        assert "Unknown" not in checked.stderr


# --------------------------------------------------------------------------------- what goes wrong


def refused(home: Path, *arguments: str, code: int) -> str:
    """What is said by a service that does not start, in this process."""
    environment = {"XDG_DATA_HOME": str(home), "RUCIO_TRACE_CONFIG": os.devnull}
    result = CliRunner().invoke(cli, ["serve", *arguments], env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_a_certificate_that_is_none_is_said(tmp_path: Path, workers: int) -> None:
    (tmp_path / "c.toml").write_text('[service]\ncertificate = "c.toml"\nkey = "c.toml"\nport = 0\n')
    argv = [Path(sys.executable).with_name("rucio-trace"), "serve", "--workers", str(workers)]
    environment = os.environ | {"XDG_DATA_HOME": str(tmp_path), "RUCIO_TRACE_CONFIG": str(tmp_path / "c.toml")}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "a certificate and its key" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--store", "oracle://x/y"), 2, "is not supported"),
        (("--store", "postgresql://nobody@127.0.0.1:1/none"), 3, "expected an answer"),
        (("--federation", "/dev/null"), 2, "[[member]]"),
        (("--address", "192.0.2.1"), 2, "an address to listen on"),
        (("--workers", "0"), 2, "--workers"),
        (("--federation", "/dev/null", "--anchors", "/dev/null"), 2, "not both"),
    ],
)
def test_what_keeps_it_from_starting_is_said_in_a_line(
    tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    assert words in refused(tmp_path, "--port", "0", *arguments, code=code)


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1 port {port}" in refused(tmp_path, "--port", str(port), code=2)


def test_a_wrong_file_stops_what_needs_it_until_it_is_mended(tmp_path: Path) -> None:
    with serving(tmp_path, f"sqlite:///{tmp_path}/t.db") as running, running.client(running.token()) as client:
        anchor = tmp_path / "anchor.pem"
        good = anchor.read_bytes()

        def code() -> int:
            return client.post("/api/v2/traces", content=body([trace()])).status_code

        assert code() == 200
        anchor.write_bytes(b"no certificate")
        answer = client.post("/api/v2/traces", content=body([trace()]))
        assert answer.status_code == 503
        assert str(tmp_path) not in answer.text, "that is the operator's"
        assert running.server.has_said(b"anchor")
        assert client.get("/api/v1/traces/name/x").status_code == 200
        anchor.write_bytes(good)
        assert code() == 200
        tokens = (tmp_path / "tokens.json").read_bytes()
        (tmp_path / "tokens.json").write_bytes(b"{")
        assert code() == 503
        (tmp_path / "tokens.json").write_bytes(tokens)
        assert code() == 200


def test_no_secret_reaches_the_log(tmp_path: Path) -> None:
    with rucio_trace(tmp_path, "serve", "--port", "0", XDG_DATA_HOME=str(tmp_path)) as server:
        url = address(server)
        for _ in range(3):
            get(f"{url}/api/v2/traces/x", headers={"Authorization": "Bearer rt_secret"})
            get(f"{url}/api/v1/traces/x?token=rt_secret")
        wait_until(lambda: get(f"{url}/health").status_code == 200, "its answer")
    assert b"rt_secret" not in server.log.read_bytes()
