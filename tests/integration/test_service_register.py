"""Registration over HTTP, with a real server: what is taken, what is not, and what it says."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from samples import batch, line, product, statement, trace
from service_kit import Running, address, body, new_store, program, serving
from unit.authority import Authority
from unit.authority import made as signed_by

from rucio_trace.batch import write_lines
from rucio_trace.envelope import sign, to_json
from rucio_trace.service.access import Role
from rucio_trace.service.tokens import TokenFile
from rucio_trace.statement import Event, format_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx
    from rucio_trace_sandbox.pki import SandboxAuthority

TRACES = "/api/v2/traces"
NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
    with serving(folder, new_store(request, folder), private=["SECRET"], max_body_bytes=8 * 1024**2) as running:
        yield running


@pytest.fixture(scope="module")
def client(service: Running) -> Iterator[httpx.Client]:
    with service.client(service.token()) as client:
        yield client


def post(client: httpx.Client, content: bytes, code: int = 200, **headers: str) -> dict[str, Any]:
    answer = client.post(TRACES, content=content, headers=headers)
    assert answer.status_code == code, answer.text
    found: dict[str, Any] = answer.json()
    return found


def outcomes(answer: dict[str, Any]) -> list[str]:
    found = [result["outcome"] for result in answer["results"]]
    assert all(answer[outcome] == found.count(outcome) for outcome in ("stored", "known", "conflict", "refused"))
    return found


def test_a_registered_trace_is_found_as_it_was_signed(client: httpx.Client) -> None:
    made = trace()
    result = post(client, body([made]))["results"][0]
    assert result["outcome"] == "stored"
    assert result["id"] == made.id
    record = client.get(f"{TRACES}/{made.id}").json()
    assert record["trace"] == to_json(made)
    assert record["position"] == result["position"]


def test_repeating_is_known_and_changes_nothing(client: httpx.Client) -> None:
    content = body([trace(), trace()])
    first = post(client, content)
    again = post(client, content)
    assert outcomes(again) == ["known", "known"]
    assert [r["position"] for r in again["results"]] == [r["position"] for r in first["results"]]


def test_another_message_under_a_known_id_is_a_conflict(client: httpx.Client) -> None:
    made = trace()
    other = trace(key=product(2), event_id=made.id)
    post(client, body([made]))
    assert outcomes(post(client, body([other]))) == ["conflict"]
    assert client.get(f"{TRACES}/{made.id}").json()["trace"] == to_json(made)


def test_each_bad_item_costs_itself_alone(client: httpx.Client) -> None:
    good, unsigned, altered = trace(), to_json(trace()), to_json(trace())
    unsigned["signature"] = dict.fromkeys(("algorithm", "certificate", "message", "signature"), "")
    altered["product"]["size"] += 1
    items = [3, unsigned, to_json(good), altered, {"trace": to_json(trace()), "scop": "s"}]
    answer = post(client, json.dumps(items).encode())
    assert outcomes(answer) == ["refused", "refused", "stored", "refused", "refused"]
    assert all(result["reason"] for result in answer["results"] if result["outcome"] == "refused")
    assert answer["results"][3]["faults"][0]["kind"] == "EnvelopeDiffers"


def test_a_trace_of_strangers_is_refused(client: httpx.Client) -> None:
    stranger = Authority.root("Stranger").issue().signer
    answer = post(client, body([signed_by(stranger)]))
    assert outcomes(answer) == ["refused"]
    assert {fault["kind"] for fault in answer["results"][0]["faults"]} >= {"UnknownIssuer"}


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "identity"])
@pytest.mark.parametrize("lines", [False, True])
def test_every_encoding_and_both_forms_are_read(client: httpx.Client, encoding: str, lines: bool) -> None:
    pack = {"gzip": gzip.compress, "zstd": zstandard.compress, "identity": bytes}[encoding]
    made = [trace() for _ in range(3)]
    content = b"\n".join(json.dumps(to_json(m)).encode() for m in made) if lines else body(made)
    answer = post(client, pack(content), **{"Content-Encoding": encoding, **(NDJSON if lines else {})})
    assert outcomes(answer) == ["stored"] * 3
    assert [result["id"] for result in answer["results"]] == [m.id for m in made]


def test_one_trace_as_an_object_is_read(client: httpx.Client) -> None:
    content = json.dumps(to_json(trace()), indent=2).encode()
    assert outcomes(post(client, content, **{"Content-Type": "application/json"})) == ["stored"]


def test_nothing_is_nothing(client: httpx.Client) -> None:
    assert outcomes(post(client, b"[]")) == []
    assert outcomes(post(client, b"")) == []


def test_a_batch_is_taken_with_its_list_alone(client: httpx.Client) -> None:
    lines = [line(product(n)) for n in range(3)]
    made = batch(lines)
    assert outcomes(post(client, body([made]))) == ["refused"]
    item = {"trace": to_json(made), "list": base64.b64encode(write_lines(lines)).decode()}
    assert outcomes(post(client, json.dumps([item]).encode())) == ["stored"]


def test_a_scope_is_for_the_files_of_no_rucio(tmp_path: Path, pki: SandboxAuthority) -> None:
    """The right in that scope then stands for the right to speak outside."""
    signer = pki.admit("SITE", create=["mine"]).signer
    nowhere: dict[str, Any] = dict.fromkeys(("rucio", "vo", "did", "generation", "rse"))
    facts = {**nowhere, "signer": signer.fingerprint, "time": format_time(datetime.now(UTC))}
    made = [sign(statement(Event.CREATE, **facts), signer) for _ in range(3)]
    trust = {"federation": str(pki.federation)}
    with (
        serving(tmp_path, f"sqlite:///{tmp_path}/t.db", trust=trust) as running,
        running.client(running.token()) as client,
    ):
        assert outcomes(post(client, body(made[:1]))) == ["refused"]
        answer = client.post(TRACES, params={"scope": "mine"}, content=body(made[1:2]))
        assert outcomes(answer.json()) == ["stored"]
        items = [{"trace": to_json(made[2]), "scope": scope} for scope in ("theirs", "mine")]
        assert outcomes(post(client, json.dumps(items[:1]).encode())) == ["refused"]
        assert outcomes(post(client, json.dumps(items[1:]).encode())) == ["stored"]


def test_a_service_that_trusts_nobody_registers_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    with (
        serving(tmp_path, f"sqlite:///{tmp_path}/t.db", trust={}, private=["SECERT"]) as running,
        running.client(running.token()) as client,
    ):
        assert running.server.has_said(b"no token is of SECERT")
        assert "--federation" in post(client, body([trace()]), code=503)["detail"]
        assert client.get("/ready").status_code == 200
        assert running.server.has_said(b"nobody is trusted")


# ------------------------------------------------------------------------------------- who may


def test_without_a_token_or_with_a_wrong_one_nothing_is_registered(service: Running, client: httpx.Client) -> None:
    made = trace()
    with service.client() as anonymous:
        answer = anonymous.post(TRACES, content=body([made]))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    with service.client("rt_wrong") as stranger:
        assert stranger.post(TRACES, content=body([made])).status_code == 401
        assert stranger.get(f"{TRACES}/{made.id}").status_code == 401
    with service.client(service.token("looker", "SITE", Role.READ)) as looker:
        answer = looker.post(TRACES, content=body([made]))
    assert answer.status_code == 403
    assert "register" in answer.json()["detail"]
    assert client.get(f"{TRACES}/{made.id}").status_code == 404


def test_tokens_change_while_the_service_runs(service: Running) -> None:
    old = service.token("changing")
    with service.client(old) as client:
        assert client.post(TRACES, content=b"[]").status_code == 200
        new = service.tokens.rotate("changing", timedelta(hours=1), datetime.now(UTC))
        assert client.post(TRACES, content=b"[]").status_code == 200, "within its grace"
        newest = service.tokens.rotate("changing", timedelta(0), datetime.now(UTC))
        assert client.post(TRACES, content=b"[]").status_code == 401
    with service.client(new) as client:
        assert client.post(TRACES, content=b"[]").status_code == 401
    with service.client(newest) as client:
        assert client.post(TRACES, content=b"[]").status_code == 200
        service.tokens.revoke("changing")
        assert client.post(TRACES, content=b"[]").status_code == 401


def test_traces_of_a_private_provider_exist_for_its_own_and_for_auditors(service: Running) -> None:
    made = trace()
    with service.client(service.token("secretive", "SECRET")) as client:
        post(client, body([made]))
        assert client.get(f"{TRACES}/{made.id}").status_code == 404, "it may register, not read"
    tokens = {
        service.token("own", "SECRET", Role.READ): 200,
        service.token("auditor", "OTHER", Role.AUDIT): 200,
        service.token("other", "OTHER", Role.READ): 404,
        None: 404,
    }
    for token, code in tokens.items():
        with service.client(token) as client:
            assert client.get(f"{TRACES}/{made.id}").status_code == code
            assert client.get(f"/api/v1/traces/{made.id}").status_code == code
            assert len(client.get(f"/api/v1/traces/name/{made.statement.name}").json()) >= (code == 200)


# ---------------------------------------------------------------------------------------- bounds


def test_too_large_is_said_before_it_is_read(client: httpx.Client) -> None:
    answer = client.post(TRACES, content=b" " * 100 * 1024**2)
    assert answer.status_code == 413
    assert "8388608" in answer.json()["detail"]


def test_too_large_without_a_length_is_noticed_while_it_comes(client: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1024**2

    assert client.post(TRACES, content=pieces()).status_code == 413


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_bomb_is_too_large_and_costs_little(client: httpx.Client, service: Running, encoding: str) -> None:
    if encoding == "gzip":
        packer = zlib.compressobj(1, wbits=31)
        content = b"".join(packer.compress(b" " * 1024**2) for _ in range(512)) + packer.flush()
    else:
        content = zstandard.ZstdCompressor().compress(b" " * 512 * 1024**2)
    answer = client.post(TRACES, content=content, headers={"Content-Encoding": encoding})
    assert answer.status_code == 413
    peak = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{service.server.pid}/status").read_text())
    assert int(peak[0]) < 400 * 1024


@pytest.mark.parametrize(
    ("encoding", "content", "code"),
    [
        ("br", b"[]", 415),
        ("gzip, gzip", b"[]", 415),
        ("gzip", b"[]", 400),
        ("gzip", gzip.compress(b"[]" + b" " * 1000, mtime=0)[:-9], 400),
        ("zstd", b"[]", 400),
        ("zstd", zstandard.compress(b"\n" * 1000)[:-1], 400),
        ("identity", b"[" * 10_000, 400),
        ("identity", b"[" * 10_000 + b"]" * 10_000, 400),
        ("identity", b'{"product":' * 10_000 + b"1" + b"}" * 10_000, 400),
        ("identity", b"[1", 400),
        ("identity", b"[1] 2", 400),
        ("identity", b"\xff\xfe", 400),
        ("identity", b"[" + b"1," * 10_000 + b"1]", 413),
    ],
)
def test_what_is_not_a_body_of_traces_is_refused_clearly(
    client: httpx.Client, encoding: str, content: bytes, code: int
) -> None:
    for kind in ("application/json", "application/x-ndjson"):
        problem = post(client, content, code=code, **{"Content-Encoding": encoding, "Content-Type": kind})
        assert problem["status"] == code
        assert problem["detail"]


# --------------------------------------------------------------------------------- the document


def test_with_no_settings_it_serves_and_the_examples_of_its_document_are_taken(tmp_path: Path) -> None:
    """On SQLite in the user's folder, with a page that needs no internet."""
    home = {"XDG_DATA_HOME": str(tmp_path), "RUCIO_TRACE_CONFIG": os.devnull}
    anchor = Path(__file__).parents[1] / "vectors/service/ca.pem"
    with program(tmp_path, "serve", "--port", "0", "--anchors", str(anchor), **home) as server:
        assert server.has_said(b"rucio-trace token create NAME")
        running = Running(address(server), server, TokenFile(tmp_path / "rucio-trace/tokens.json"))
        with running.client(running.token()) as client:
            operation = client.get("/openapi.json").json()["paths"]["/api/v2/traces"]["post"]
            examples = operation["requestBody"]["content"]["application/json"]["examples"]
            assert len(examples) >= 2
            for example in examples.values():
                assert outcomes(post(client, json.dumps(example["value"]).encode())) == ["stored"]
            page = client.get("/docs").text
            files = [text for text in page.split('"') if text.endswith((".js", ".css"))]
            assert len(files) >= 2
            assert all(client.get(file).status_code == 200 for file in files if file.startswith("/"))
            assert all(file.startswith("/") for file in files)
    assert (tmp_path / "rucio-trace/traces.db").exists()
