"""`rucio-trace import`: what comes with products from elsewhere is believed as far as it is signed, and no further."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from samples import digest
from unit.authority import Authority, declared, signed_raw, usage

from rucio_trace.cli import cli
from rucio_trace.envelope import Signer, dumps, parse_traces
from rucio_trace.errors import ConfigurationError
from rucio_trace.exchange.fetch import NotFetched, fetch
from rucio_trace.store import Store
from rucio_trace.trace import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
VECTORS = Path(__file__).parent.parent / "vectors" / "cdse"
LIFE = {"since": NOW - 10 * DAY, "until": NOW + 10 * DAY}


def cdse(number: int = 1, signer: Signer | None = None, event: str = "CREATE", **outer: Any) -> dict[str, Any]:
    """A trace as the service answers it: signed, and with what the server adds."""
    members = {
        "contents": [{"hash": digest("a"), "path": f"p{number}/a"}, {"hash": digest("b"), "path": f"p{number}/b"}],
        "hash": digest(f"p{number}"),
        "inputs": [{"hash": digest("l0"), "name": "l0"}],
        "name": f"p{number}.zip",
        "size": 5,
        "event": event,
    }
    beside = {"id": f"id-{number}", "timestamp": "2026-05-01T00:00:00.000000Z", "origin": "lta", "obsolescence": None}
    return signed_raw(json.dumps(members, separators=(",", ":")), signer or ARCHIVE, **{**beside, **outer})


ROOT = Authority.root("Archive CA", **LIFE)
ARCHIVE = ROOT.issue("trace.archive.example", **LIFE).signer


class Site:
    """A store and whom it trusts: a member for files outside Rucio, and one for a scope only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.producers = Authority.root("Producers CA", **LIFE)
        (folder / "archive.pem").write_bytes(ROOT.pem)
        (folder / "producers.pem").write_bytes(self.producers.pem)
        (folder / "federation.toml").write_text(
            '[[member]]\nname = "ARCHIVE"\nca = "archive.pem"\nsubject = "*"\noutside = true\n'
            '[[member]]\nname = "PRODUCER"\nca = "producers.pem"\nsubject = "*"\ncreate = ["s2"]\n'
        )
        self.url = f"sqlite:///{folder / 'traces.db'}"
        (folder / "config.toml").write_text(f'[store]\nurl = "{self.url}"\n[trust]\nfederation = "federation.toml"\n')
        Store.open(self.url).close()

    def run(self, *arguments: object, code: int, stdin: bytes | None = None) -> Result:
        environment = {"RUCIO_TRACE_CONFIG": str(self.folder / "config.toml")}
        result = CliRunner().invoke(cli, [str(a) for a in arguments], env=environment, input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == code, result.output
        return result

    def take(self, value: Any, *options: object, code: int = 0) -> list[dict[str, Any]]:
        """Import *value* as JSON; what is told of each trace."""
        file = self.folder / "traces.json"
        file.write_text(value if isinstance(value, str) else json.dumps(value))
        result = self.run("import", file, "--json", *options, code=code)
        return [json.loads(line) for line in result.stdout.splitlines()]

    def count(self) -> int:
        with Store.open(self.url) as store:
            return store.position()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_what_is_properly_signed_is_taken_and_kept_as_it_was(site: Site) -> None:
    value = [cdse(1), cdse(2)]
    told = site.take(value)
    assert [(t["answer"], t["position"], t["name"]) for t in told] == [("stored", 1, "p1.zip"), ("stored", 2, "p2.zip")]
    with Store.open(site.url) as store:
        [stored] = store.by_name("p1.zip")
    [as_given] = parse_traces(json.dumps(value[:1]).encode())
    assert stored.trace == as_given
    assert stored.trace.message == value[0]["signature"]["message"]


def test_importing_again_changes_nothing(site: Site) -> None:
    site.take([cdse(1), cdse(1), cdse(2)])
    told = site.take([cdse(1), cdse(2)])
    assert [t["answer"] for t in told] == ["known", "known"]
    assert site.count() == 2


def test_one_bad_trace_costs_itself_alone_and_the_table_says_what_became_of_each(site: Site) -> None:
    stranger = cdse(2, Authority.root("Unknown", **LIFE).issue("x", **LIFE).signer)
    file = site.folder / "t.json"
    file.write_text(json.dumps([cdse(1), stranger, "no trace", {}, cdse(3)]))
    result = site.run("import", file, code=1)
    words = [line.split()[1] for line in result.stdout.splitlines() if line.split()[:1] and line.split()[0].isdigit()]
    assert words == ["stored", "UNTRUSTED", "TAMPERED", "TAMPERED", "stored"]
    assert "1 UNTRUSTED, 2 TAMPERED, 2 stored" in result.stderr or "2 TAMPERED, 1 UNTRUSTED, 2 stored" in result.stderr
    assert "no anchor vouches for" in result.stdout
    assert site.count() == 2


# ---------------------------------------------------------------- the weak points of the field's client


@pytest.mark.parametrize("vector", ["04-create-rsa", "05-create-ecdsa", "06-copy-ecdsa", "12-inputs"])
def test_a_self_signed_signer_is_untrusted(site: Site, vector: str) -> None:
    [told] = site.take((VECTORS / f"{vector}.json").read_text(), code=1)
    assert told["answer"] == "UNTRUSTED"
    assert site.count() == 0


@pytest.mark.parametrize("part", ["signature", "certificate", "message"])
def test_a_stripped_signature_is_untrusted(site: Site, part: str) -> None:
    value = cdse()
    value["signature"][part] = ""
    assert [t["answer"] for t in site.take([value], code=1)] == ["UNTRUSTED"]
    assert [t["answer"] for t in site.take((VECTORS / "01-create-unsigned-blake3.json").read_text(), code=1)] == [
        "UNTRUSTED"
    ]
    assert site.count() == 0


def _added(key: str, item: dict[str, str]) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["product"][key].append(item)


def _emptied(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["product"].update({key: None})


_CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "a content added": _added("contents", {"path": "evil", "hash": digest("evil")}),
    "a content removed": lambda value: value["product"]["contents"].pop(),
    "contents in another order": lambda value: value["product"]["contents"].reverse(),
    "all contents removed": _emptied("contents"),
    "an input added": _added("inputs", {"name": "evil", "hash": digest("evil")}),
    "all inputs removed": _emptied("inputs"),
    "another size": lambda value: value["product"].update(size=6),
    "another digest": lambda value: value["product"].update(hash=digest("evil")),
    "another event": lambda value: value.update(event="OBSOLETE"),
}


@pytest.mark.parametrize("change", _CHANGES)
def test_what_is_changed_beside_the_signed_text_is_noticed(site: Site, change: str) -> None:
    value = cdse()
    _CHANGES[change](value)
    [told] = site.take([value], code=1)
    assert (told["answer"], told["faults"][0]["kind"]) == ("TAMPERED", "EnvelopeDiffers")
    assert site.count() == 0


def test_a_changed_text_is_noticed(site: Site) -> None:
    value = cdse()
    value["signature"]["message"] = value["signature"]["message"].replace('"size":5', '"size":6')
    value["product"]["size"] = 6
    [told] = site.take([value], code=1)
    assert (told["answer"], told["faults"][0]["kind"]) == ("TAMPERED", "BadSignature")


@pytest.mark.parametrize(
    ("key", "lie"),
    [
        ("timestamp", "1999-01-01T00:00:00.000000Z"),
        ("origin", "somebody else"),
        ("id", "another"),
        ("hash_algorithm", "SHA3"),
        ("obsolescence", "use mine instead"),
    ],
)
def test_what_no_signature_covers_is_noted_and_never_believed(site: Site, key: str, lie: str) -> None:
    value = cdse(**{key: lie})
    [told] = site.take([value])
    assert told["not_signed"][key] == lie
    with Store.open(site.url) as store:
        [stored] = store.by_name("p1.zip")
    s = stored.trace.statement
    assert (s.time, s.site, s.hash_algorithm, s.obsolescence, s.event_id) == (None, None, None, None, None)
    assert stored.id != lie
    [found] = [json.loads(line) for line in site.run("search", "p1.zip", "--json", code=0).stdout.splitlines()]
    assert found["not_signed"][key] == lie
    assert lie not in json.dumps(found["statement"])
    shown = site.run("search", "p1.zip", code=0).stdout
    assert "not signed: " in shown
    assert key in shown
    table = site.run("import", site.folder / "traces.json", code=0).stdout
    assert key in table
    # the same signed text with other things beside it is the same trace
    assert [t["answer"] for t in site.take([cdse(**{key: "yet another"})])] == ["known"]


def test_a_directorys_empty_digest_is_refused(site: Site) -> None:
    text = json.dumps({"hash": "", "name": "folder", "size": 0, "event": "CREATE"}, separators=(",", ":"))
    [told] = site.take([signed_raw(text, ARCHIVE)], code=1)
    assert told["answer"] == "TAMPERED"
    assert site.count() == 0


def test_an_unsigned_obsolete_blocks_nobody(site: Site) -> None:
    unsigned = cdse(event="OBSOLETE", obsolescence="blocked")
    unsigned["signature"] = dict.fromkeys(unsigned["signature"], "") | {"chain": None}
    told = site.take([cdse(), unsigned], code=1)
    assert [t["answer"] for t in told] == ["stored", "UNTRUSTED"]
    with Store.open(site.url) as store:
        assert [s.trace.statement.event for s in store.by_name("p1.zip")] == ["CREATE"]


def test_the_algorithm_is_the_keys_own_whoever_issued_the_certificate(site: Site) -> None:
    """The field's client takes it from the issuer's signature: of an EC key below an RSA authority it finds RSA."""
    for bits in (None, 2048):
        signer = ROOT.issue("rsa" if bits else "ec", **({"key": _rsa()} if bits else {}), **LIFE).signer
        value = cdse(7 if bits else 8, signer)
        assert value["signature"]["algorithm"] == ("RSA-SHA256" if bits else "ECDSA-SHA256")
        assert [t["answer"] for t in site.take([value])] == ["stored"]
        value = cdse(9, signer)
        value["signature"]["algorithm"] = "ECDSA-SHA256" if bits else "RSA-SHA256"
        [told] = site.take([value], code=1)
        assert told["faults"][0]["kind"] == "WrongAlgorithm"


def _rsa() -> Any:
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(65537, 2048)


def test_an_expired_certificate_is_an_answer_of_its_own(site: Site) -> None:
    gone = ROOT.issue("old", since=NOW - 9 * DAY, until=NOW - DAY).signer
    [told] = site.take([cdse(1, gone)], code=1)
    assert (told["answer"], told["faults"][0]["kind"]) == ("EXPIRED", "Expired")
    [real] = site.take((VECTORS / "real-cdse-trace.json").read_text(), code=1)
    assert real["answer"] == "UNTRUSTED"


# ------------------------------------------------------------------------------- ours, rights, sources


def test_our_own_traces_are_taken_too_and_leave_nothing_unsigned(site: Site) -> None:
    [told] = site.take(dumps([declared(ARCHIVE, product=None, time=format_time(NOW))]))
    assert (told["answer"], told["not_signed"]) == ("stored", {})


def test_a_producer_without_the_right_outside_is_taken_for_its_scope_alone(site: Site) -> None:
    producer = site.producers.issue("producer", **LIFE).signer
    own = dumps([declared(producer, product=None, time=format_time(NOW))])
    [told] = site.take(own, code=1)
    assert (told["answer"], told["faults"][0]["kind"]) == ("UNTRUSTED", "OutsideRights")
    [told] = site.take(own, "--scope", "s3", code=1)
    assert told["answer"] == "UNTRUSTED"
    [told] = site.take(own, "--scope", "s2")
    assert told["answer"] == "stored"


def test_with_nobody_trusted_nothing_is_taken(site: Site) -> None:
    (site.folder / "config.toml").write_text(f'[store]\nurl = "{site.url}"\n')
    (site.folder / "t.json").write_text(json.dumps([cdse()]))
    assert "trust" in site.run("import", site.folder / "t.json", code=2).stderr


def test_several_sources_and_standard_input(site: Site) -> None:
    for number in (1, 2):
        (site.folder / f"{number}.json").write_text(json.dumps({"traces": [cdse(number)]}))
    result = site.run("import", site.folder / "1.json", "-", "--json", code=0, stdin=json.dumps(cdse(3)).encode())
    assert [json.loads(line)["name"] for line in result.stdout.splitlines()] == ["p1.zip", "p3.zip"]
    result = site.run("import", site.folder / "none.json", site.folder / "2.json", "--json", code=3)
    assert [json.loads(line)["answer"] for line in result.stdout.splitlines()] == ["stored"]
    assert "none.json" in result.stderr
    (site.folder / "cut.json").write_text(json.dumps([cdse(4), cdse(5)])[:-1])
    result = site.run("import", site.folder / "cut.json", "--json", code=3)
    assert "closing bracket" in result.stderr
    assert site.count() == 4
    assert "no traces" in site.run("import", "-", code=0, stdin=b"[]").stderr
    (site.folder / "none.json").write_text("[null]")
    site.run("import", site.folder / "none.json", site.folder / "2.json", code=1)


def test_hostile_names_are_shown_harmlessly(site: Site) -> None:
    text = json.dumps({"hash": digest("x"), "name": "a\x1b[2J\u202e", "size": 1, "event": "CREATE"})
    value = signed_raw(text, ARCHIVE, origin="\x1b[31m", id="\u202e")
    (site.folder / "t.json").write_text(json.dumps([value]))
    for options in ((), ("--json",)):
        result = site.run("import", site.folder / "t.json", *options, code=0)
        assert "\x1b" not in result.output
        assert "\u202e" not in result.output


# -------------------------------------------------------------------------------------- over HTTP(S)


@contextmanager
def served(answer: Callable[[BaseHTTPRequestHandler], None], context: Any = None) -> Iterator[str]:
    """A server that answers every question with *answer*; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)
            self.close_connection = True

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def replying(body: bytes, code: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in ({"Content-Length": str(len(body))} | told).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def body_of(url: str, **limits: Any) -> bytes:
    return b"".join(fetch(url, **limits))


def test_the_services_answer_is_imported_from_its_address(site: Site) -> None:
    with served(replying(json.dumps([cdse(1), cdse(2)]).encode(), Content_Type="application/json")) as url:
        result = site.run("import", f"{url}/api/v1/traces/name/p1.zip", "--json", code=0)
    assert [json.loads(line)["answer"] for line in result.stdout.splitlines()] == ["stored", "stored"]


def test_an_answer_that_is_cut_off_is_no_answer_but_what_came_is_kept(site: Site) -> None:
    body = json.dumps([cdse(1), cdse(2)]).encode()
    with served(replying(body[:-1], Content_Length=str(len(body)))) as url:
        result = site.run("import", url, "--json", code=3)
        with pytest.raises(NotFetched, match="then the end"):
            body_of(url)
    assert site.count() >= 1
    assert "127.0.0.1" in result.stderr


_NO_ANSWERS: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {
    "404": replying(b"gone", 404),
    "500": replying(b"", 500),
    "gzip": replying(b"\x1f\x8b", Content_Encoding="gzip"),
    "at most 1000 bytes": replying(b"x" * 2_000),
    "ftp": replying(b"", 302, Location="ftp://127.0.0.1/x"),
    "file": replying(b"", 302, Location="file:///etc/passwd"),
    "without a user": replying(b"", 302, Location="http://user:secret@127.0.0.1/x"),
    "nonsense": lambda handler: handler.wfile.write(b"nonsense\r\n\r\n") and None,
    "an answer": lambda handler: None,
}


@pytest.mark.parametrize("told", _NO_ANSWERS)
def test_what_is_no_answer_is_an_error_that_tells_no_secret(told: str) -> None:
    with served(_NO_ANSWERS[told]) as url, pytest.raises((NotFetched, ConfigurationError), match=told) as refused:
        body_of(f"{url}/path?token=secret", most=1_000)
    assert "secret" not in str(refused.value)


def test_a_server_that_never_ends_is_left() -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)

    with served(drip) as url, pytest.raises(NotFetched, match="in time"):
        body_of(url, seconds=0.2)


def endless(handler: BaseHTTPRequestHandler, start: bytes, more: bytes) -> None:
    handler.wfile.write(start)
    while True:  # until nobody listens any more
        handler.wfile.write(more)
        handler.wfile.flush()
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"Trailer: x\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    ],
    ids=["continue", "trailers", "header"],
)
def test_a_server_that_keeps_one_waiting_anywhere_is_left(start: bytes, more: bytes) -> None:
    with served(lambda handler: endless(handler, start, more)) as url, pytest.raises(NotFetched, match="in time"):
        body_of(url, seconds=1.0)


def test_a_circle_of_redirections_ends() -> None:
    with served(lambda handler: replying(b"", 302, Location=handler.path)(handler)) as url, pytest.raises(NotFetched):
        body_of(f"{url}/x")


def test_what_comes_with_a_redirection_is_not_read() -> None:
    most = 1 << 26
    sent = [0]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/there":
            return replying(b"[]")(handler)
        handler.send_response(302)
        handler.send_header("Location", "/there")
        handler.end_headers()
        with suppress(OSError):
            while sent[0] < most:
                handler.wfile.write(bytes(1 << 20))
                sent[0] += 1 << 20
        return None

    with served(answer) as url:
        assert body_of(f"{url}/x") == b"[]"
    assert sent[0] < most


def test_an_address_a_server_should_not_send_us_to_ends_that_source_alone(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "traces.json"
    file.write_text(json.dumps([cdse(1)]))
    with served(replying(b"", 302, Location="http://user:secret@127.0.0.1/x")) as url:
        result = site.run("import", url, file, "--json", code=3)
    assert [json.loads(line)["answer"] for line in result.stdout.splitlines()] == ["stored"]
    assert "secret" not in result.stderr


def test_nothing_but_the_question_follows_a_redirection() -> None:
    asked: list[dict[str, str]] = []

    def other(handler: BaseHTTPRequestHandler) -> None:
        asked.append({key.lower(): value for key, value in handler.headers.items()})
        replying(b"[]")(handler)

    with served(other) as there, served(replying(b"", 302, Location=f"{there}/y", Set_Cookie="a=b")) as here:
        assert body_of(f"{here}/x?token=secret") == b"[]"
    assert asked[0].keys() <= {"host", "accept", "accept-encoding", "user-agent", "connection"}
    assert "secret" not in json.dumps(asked)


@pytest.mark.parametrize("url", ["http://user:secret@host/x", "http://", "https://[::1", "http://host:port/"])
def test_an_address_with_a_user_or_without_a_host_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        body_of(url)
    assert "secret" not in str(refused.value)


def test_the_servers_certificate_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ipaddress
    import ssl

    authority = Authority.root("Web CA", **LIFE)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(usage(digital_signature=True), critical=True)
        .sign(authority.key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    (tmp_path / "server.pem").write_bytes(pem)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    with served(replying(b"[]"), context) as url:
        with pytest.raises(NotFetched, match="CERTIFICATE_VERIFY_FAILED"):
            body_of(url)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert body_of(url) == b"[]"
    with served(replying(b"[]")) as plain:
        downgrade = replying(b"", 302, Location=plain)
        with served(downgrade, context) as url, pytest.raises(NotFetched, match="TLS"):
            body_of(url)
