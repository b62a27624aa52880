"""Files over HTTP: real servers, and one that does everything wrong."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import time
from typing import TYPE_CHECKING

import pytest
from rucio_trace_daemons.readers import transport
from rucio_trace_daemons.readers.credentials import Bearer, Nobody, Presigned, grid
from rucio_trace_daemons.readers.http import RESUMES, HttpReader
from rucio_trace_daemons.storage_errors import Changed, NotFound, Refused, ShortRead, Unavailable
from rucio_trace_sandbox.faulty import FaultyHttp, Request
from rucio_trace_sandbox.tls import LoopbackTls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rucio_trace_sandbox.webdav import Nginx
    from rucio_trace_sandbox.xrootd import XRootD

CONTENT = os.urandom(3_000_001)
WHAT = "test:file on WEB"


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyHttp]:
    with FaultyHttp.start() as server:
        yield server


@pytest.fixture(scope="module")
def secure(tls: LoopbackTls) -> Iterator[FaultyHttp]:
    with FaultyHttp.start(tls) as server:
        yield server


@pytest.fixture
def faulty(server: FaultyHttp) -> FaultyHttp:
    return fresh(server)


@pytest.fixture
def faulty_tls(secure: FaultyHttp, trusted: LoopbackTls) -> FaultyHttp:
    return fresh(secure)


def fresh(server: FaultyHttp) -> FaultyHttp:
    server.content, server.etag = CONTENT, '"1"'
    server.answers.clear()
    server.seen.clear()
    return server


def read(reader: HttpReader, url: str, size: int | None = None) -> bytes:
    with reader.pieces(WHAT, url, size) as pieces:
        return b"".join(pieces)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# ------------------------------------------------------------------------------------- real servers


@pytest.mark.parametrize("kind", ["nginx", "xrootd"])
@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 1, 20_000_001])
def test_a_file_is_read_whole(kind: str, size: int, nginx: Nginx, xrootd_https: XRootD, trusted: LoopbackTls) -> None:
    server, port = (nginx, nginx.port) if kind == "nginx" else (xrootd_https, xrootd_https.https_port)
    content = os.urandom(size)
    (server.make_folder("whole") / f"file{size}").write_bytes(content)
    reader, url = HttpReader(Nobody()), f"davs://127.0.0.1:{port}/whole/file{size}"
    assert sha256(read(reader, url)) == sha256(content)
    assert reader.exists(WHAT, url)


@pytest.mark.parametrize("kind", ["nginx", "xrootd"])
def test_a_missing_file_and_a_missing_folder_are_told_from_what_is_there(
    kind: str, nginx: Nginx, xrootd_https: XRootD, trusted: LoopbackTls
) -> None:
    server, port = (nginx, nginx.port) if kind == "nginx" else (xrootd_https, xrootd_https.https_port)
    server.make_folder("there")
    reader, url = HttpReader(Nobody()), f"davs://127.0.0.1:{port}"
    with pytest.raises(NotFound):
        read(reader, f"{url}/there/missing")
    assert not reader.exists(WHAT, f"{url}/there/missing")
    assert reader.check_folder(WHAT, f"{url}/there/")
    with pytest.raises(NotFound):
        reader.check_folder(WHAT, f"{url}/elsewhere/")


@pytest.mark.skipif(os.geteuid() != 0, reason="the files must belong to another account")
def test_a_file_that_may_not_be_read_is_refused(nginx: Nginx, trusted: LoopbackTls) -> None:
    path = nginx.make_folder("closed") / "file"
    path.write_bytes(b"content")
    path.chmod(0)
    with pytest.raises(Refused):
        read(HttpReader(Nobody()), f"https://127.0.0.1:{nginx.port}/closed/file")


def test_a_server_that_is_down_is_unavailable(trusted: LoopbackTls) -> None:
    with FaultyHttp.start() as server:
        url = server.url
    with pytest.raises(Unavailable, match="no answer over HTTP"):
        read(HttpReader(Nobody()), url)


def test_a_server_whose_certificate_nobody_vouches_for_is_not_believed(
    nginx: Nginx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("X509_CERT_DIR", "/nonexistent")
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        read(HttpReader(Nobody()), f"https://127.0.0.1:{nginx.port}/file")


def test_a_server_that_has_the_certificate_of_another_is_not_believed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = LoopbackTls.make(folder / "tls", "elsewhere.example.org")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other.ca))
    with FaultyHttp.start(other) as server, pytest.raises(Unavailable):
        read(HttpReader(Nobody()), server.url)
    assert server.seen == []


def test_the_bundle_of_the_environment_is_the_only_one_believed(
    nginx: Nginx, trusted: LoopbackTls, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nginx.make_folder("bundle") / "file").write_bytes(b"content")
    url = f"https://127.0.0.1:{nginx.port}/bundle/file"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted.ca))
    assert read(HttpReader(Nobody()), url) == b"content"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/certs")
    with pytest.raises(Unavailable):
        read(HttpReader(Nobody()), url)


# ------------------------------------------------------------------------- connections that break


def cut(at: int, **headers: str) -> object:
    return lambda request: request.serve(cut=at, **headers)


def test_a_body_that_breaks_off_is_taken_up_where_it_broke(faulty: FaultyHttp) -> None:
    faulty.answers = [cut(1_000_000), cut(1_500_000)]
    assert sha256(read(HttpReader(Nobody()), faulty.url)) == sha256(CONTENT)
    ranges = [headers.get("Range") for _, _, headers in faulty.seen]
    assert ranges[0] is None
    assert len(ranges) == 3
    assert all(range_.startswith("bytes=") for range_ in ranges[1:])


def test_a_last_modified_date_proves_the_same_file_where_there_is_no_etag(faulty: FaultyHttp) -> None:
    faulty.answers = [cut(1_000_000, ETag=""), lambda request: request.serve(ETag="")]
    assert sha256(read(HttpReader(Nobody()), faulty.url)) == sha256(CONTENT)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param({}, {"ETag": '"2"'}, id="another file, given as the rest of the first"),
        pytest.param({}, {"ETag": ""}, id="no proof"),
        pytest.param({}, {"Content-Range": "bytes 7-3000000/3000001"}, id="another range"),
        pytest.param({}, {"Content-Range": ""}, id="no range"),
        pytest.param({"ETag": ""}, {"ETag": "", "Last-Modified": "Tue, 14 Nov 2023 22:13:21 GMT"}, id="another date"),
    ],
)
def test_the_rest_of_another_file_is_never_hashed_with_the_beginning(
    faulty: FaultyHttp, first: dict[str, str], second: dict[str, str]
) -> None:
    faulty.answers = [cut(1_000_000, **first), lambda request: request.serve(**second)]
    with pytest.raises(Changed):
        read(HttpReader(Nobody()), faulty.url)


def test_a_file_replaced_while_it_is_read_is_changed(faulty: FaultyHttp) -> None:
    def replace(request: Request) -> None:
        headers = {"ETag": faulty.etag, "Content-Length": str(len(CONTENT))}
        request.answer(200, headers, CONTENT[:1_000_000])
        faulty.content, faulty.etag = os.urandom(len(CONTENT)), '"2"'
        request.hang_up()

    faulty.answers = [replace]
    with pytest.raises(Changed):
        read(HttpReader(Nobody()), faulty.url)


@pytest.mark.parametrize("status", [404, 410, 412, 416])
def test_a_file_that_vanishes_while_it_is_read_is_changed_and_not_missing(faulty: FaultyHttp, status: int) -> None:
    faulty.answers = [cut(1_000_000), lambda request: request.fail(status)]
    with pytest.raises(Changed):
        read(HttpReader(Nobody()), faulty.url)


@pytest.mark.parametrize("headers", [{"ETag": 'W/"1"', "Last_Modified": ""}, {"ETag": "", "Last_Modified": ""}])
def test_without_proof_that_it_is_the_same_file_nothing_is_taken_up(
    faulty: FaultyHttp, headers: dict[str, str]
) -> None:
    faulty.answers = [cut(1_000_000, **headers)]
    with pytest.raises(ShortRead, match=f"promised {len(CONTENT)} bytes and gave 1000000"):
        read(HttpReader(Nobody()), faulty.url)
    assert len(faulty.seen) == 1


def test_a_server_that_starts_again_instead_of_going_on_is_not_appended(faulty: FaultyHttp) -> None:
    faulty.answers = [
        cut(1_000_000),
        lambda request: request.answer(200, {"ETag": '"1"', "Content-Length": str(len(CONTENT))}, CONTENT),
    ]
    with pytest.raises(ShortRead):
        read(HttpReader(Nobody()), faulty.url)


def test_a_server_that_always_breaks_off_is_left_in_the_end(faulty: FaultyHttp) -> None:
    faulty.answers = [cut(1_000) for _ in range(RESUMES + 5)]  # type: ignore[misc]
    with pytest.raises(ShortRead):
        read(HttpReader(Nobody()), faulty.url)
    assert len(faulty.seen) == 1 + RESUMES


def test_a_wrong_length_is_no_file(faulty: FaultyHttp) -> None:
    """Promised more than it has: asked for the rest, the server must say that there is none."""
    faulty.answers = [lambda request: request.serve(length=len(CONTENT) + 9, cut=len(CONTENT))]
    with pytest.raises(Unavailable):
        read(HttpReader(Nobody()), faulty.url)


# ------------------------------------------------------------------------------ what is sent for it


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "br", "deflate", "gzip, identity"])
def test_encoded_bytes_are_refused_whatever_we_asked_for(faulty: FaultyHttp, encoding: str) -> None:
    packed = gzip.compress(CONTENT[:1000])
    headers = {"Content-Encoding": encoding, "Content-Length": str(len(packed))}
    faulty.answers = [lambda request: request.answer(200, headers, packed)]
    with pytest.raises(Unavailable, match="encoded"):
        read(HttpReader(Nobody()), faulty.url)
    assert faulty.seen[0][2]["Accept-Encoding"] == "identity"


def test_a_transfer_encoding_we_do_not_know_is_refused(faulty: FaultyHttp) -> None:
    faulty.answers = [lambda request: (request.answer(200, {"Transfer-Encoding": "gzip"}), request.hang_up())]
    with pytest.raises(Unavailable, match="Transfer-Encoding"):
        read(HttpReader(Nobody()), faulty.url, 3)


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "Text/HTML", "application/xhtml+xml"])
def test_a_page_to_log_in_is_not_the_file(faulty: FaultyHttp, kind: str) -> None:
    page = b"<html>Log in</html>"
    with FaultyHttp.start() as login:
        login.answers = [lambda request: request.answer(200, {"Content-Type": kind, "Content-Length": "19"}, page)] * 3
        for size in (len(CONTENT), None):
            faulty.answers = [to(f"{login.url}?next=file", 302)]  # type: ignore[list-item]
            with pytest.raises(Unavailable, match="a web page of 19 bytes"):
                read(HttpReader(Nobody()), faulty.url, size)
        assert read(HttpReader(Nobody()), login.url, len(page)) == page  # a product may be one


def test_a_page_to_log_in_is_no_file_that_is_there(faulty: FaultyHttp) -> None:
    faulty.answers = [lambda request: request.serve(Content_Type="text/html")] * 2
    with pytest.raises(Unavailable, match="a web page"):
        HttpReader(Nobody()).exists(WHAT, faulty.url)
    assert HttpReader(Nobody()).exists(WHAT, f"{faulty.url}.html")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "7", "Transfer-Encoding": "chunked"},
        {"Content-Length": "-7"},
        {"Content-Length": "9" * 5000},
    ],
    ids=["and in chunks", "negative", "endless"],
)
def test_a_length_that_can_be_none_is_refused(faulty: FaultyHttp, headers: dict[str, str]) -> None:
    faulty.answers = [lambda request: (request.answer(200, headers, b"content"), request.hang_up())]
    with pytest.raises(Unavailable, match="length"):
        read(HttpReader(Nobody()), faulty.url, 7)


def test_who_asks_hears_of_a_slow_line_piece_by_piece(faulty: FaultyHttp) -> None:
    def drip(request: Request) -> None:
        request.answer(200, {"Content-Length": "30"})
        for _ in range(30):
            request.wfile.write(b"x")
            request.wfile.flush()
            time.sleep(0.1)

    faulty.answers = [drip]
    with HttpReader(Nobody()).pieces(WHAT, faulty.url, 30) as pieces:
        lengths = [len(piece) for piece in pieces]
    assert sum(lengths) == 30
    assert len(lengths) > 1


def test_a_body_without_end_is_left_at_the_size_that_rucio_knows(faulty: FaultyHttp) -> None:
    def endless(request: Request) -> None:
        request.answer(200, {"Transfer-Encoding": "chunked"})
        while True:  # until nobody listens any more
            request.wfile.write(b"4\r\nmore\r\n" * 1000)

    faulty.answers = [endless]
    with pytest.raises(ShortRead):
        read(HttpReader(Nobody()), faulty.url, 10)


def test_a_connection_is_used_again_for_the_next_file(faulty: FaultyHttp) -> None:
    reader = HttpReader(Nobody())
    for _ in range(3):
        assert sha256(read(reader, faulty.url)) == sha256(CONTENT)
    [pool] = reader.transport._pools.values()
    assert pool.connection_from_url(faulty.url).num_connections == 1


def chunked(content: bytes, end: bytes = b"0\r\n\r\n") -> object:
    def behave(request: Request) -> None:
        headers = {"Transfer-Encoding": "chunked", "Connection": "close"}
        request.answer(200, headers, b"%x\r\n%b\r\n%b" % (len(content), content, end))
        request.hang_up()

    return behave


def test_a_body_in_chunks_is_whole_if_it_has_the_size_that_rucio_knows(faulty: FaultyHttp) -> None:
    reader = HttpReader(Nobody())
    faulty.answers = [chunked(b"content"), chunked(b"content"), chunked(b"conte", b""), chunked(b"content")]  # type: ignore[list-item]
    assert read(reader, faulty.url, 7) == b"content"
    with pytest.raises(ShortRead):
        read(reader, faulty.url, 8)
    with pytest.raises(ShortRead):
        read(reader, faulty.url, 7)
    with pytest.raises(Unavailable, match="promises no length"):
        read(reader, faulty.url, None)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((401, Refused), (403, Refused), (404, NotFound), (410, NotFound), (204, Unavailable), (206, Unavailable)),
        *((400, Unavailable), (409, Unavailable), (429, Unavailable), (500, Unavailable), (503, Unavailable)),
    ],
)
def test_only_a_clear_no_such_file_is_one(faulty: FaultyHttp, status: int, error: type[Exception]) -> None:
    faulty.answers = [lambda request: request.fail(status)]
    with pytest.raises(error) as caught:
        read(HttpReader(Nobody()), faulty.url)
    assert type(caught.value) is error


# -------------------------------------------------------------------------------------- redirects


def to(url: str, status: int = 307) -> object:
    return lambda request: request.answer(status, {"Location": url, "Content-Length": "0"})


def test_a_redirect_to_a_disk_server_is_followed_without_our_token(faulty_tls: FaultyHttp, tls: LoopbackTls) -> None:
    with FaultyHttp.start(tls) as disk:
        disk.content = CONTENT
        faulty_tls.answers = [to(f"{disk.url}?uuid=1")]  # type: ignore[list-item]
        assert sha256(read(HttpReader(Bearer("token")), faulty_tls.url)) == sha256(CONTENT)
        assert faulty_tls.seen[0][2]["Authorization"] == "Bearer token"
        [(_, path, headers)] = disk.seen
        assert path == "/file?uuid=1"
        assert "Authorization" not in headers
        # Nor does coming back bring it along: whoever sent us there chose what we ask for.
        disk.answers, faulty_tls.answers = [to(faulty_tls.url)], [to(disk.url)]  # type: ignore[list-item]
        read(HttpReader(Bearer("token")), faulty_tls.url)
        assert "Authorization" not in faulty_tls.seen[-1][2]


def test_a_redirect_within_the_storage_keeps_our_token(faulty_tls: FaultyHttp) -> None:
    faulty_tls.answers = [to("/elsewhere", 302)]  # type: ignore[list-item]
    read(HttpReader(Bearer("token")), faulty_tls.url)
    assert faulty_tls.seen[1][1:2] == ("/elsewhere",)
    assert faulty_tls.seen[1][2]["Authorization"] == "Bearer token"


def test_a_redirect_away_from_tls_is_not_followed(faulty_tls: FaultyHttp, server: FaultyHttp) -> None:
    fresh(server)
    faulty_tls.answers = [to(server.url)]  # type: ignore[list-item]
    with pytest.raises(Unavailable, match="without TLS"):
        read(HttpReader(Nobody()), faulty_tls.url)
    assert server.seen == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/file"])
def test_a_redirect_to_anything_but_http_is_not_followed(faulty: FaultyHttp, url: str) -> None:
    faulty.answers = [to(url)]  # type: ignore[list-item]
    with pytest.raises(Unavailable):
        read(HttpReader(Nobody()), faulty.url)


@pytest.mark.parametrize("url", ["https://[bad", "https://127.0.0.1:99999/file", "https://127.0.0.1:port/file"])
def test_a_redirect_to_no_address_is_not_followed(faulty: FaultyHttp, url: str) -> None:
    faulty.answers = [to(url)]  # type: ignore[list-item]
    with pytest.raises(Unavailable, match="no address"):
        read(HttpReader(Nobody()), faulty.url)


@pytest.mark.parametrize("status", [404, 410])
def test_that_another_host_does_not_have_it_is_no_word_of_the_storage(faulty: FaultyHttp, status: int) -> None:
    with FaultyHttp.start() as pool:
        pool.answers = [lambda request: request.fail(status)] * 2
        faulty.answers = [to(pool.url), to(pool.url)]  # type: ignore[list-item]
        with pytest.raises(Unavailable, match="redirects to"):
            read(HttpReader(Nobody()), faulty.url)
        with pytest.raises(Unavailable, match="redirects to"):
            HttpReader(Nobody()).exists(WHAT, faulty.url)


def test_redirects_in_a_circle_end(faulty: FaultyHttp) -> None:
    faulty.answers = [to(faulty.url) for _ in range(100)]  # type: ignore[misc]
    with pytest.raises(Unavailable, match="more than"):
        read(HttpReader(Nobody()), faulty.url)
    assert len(faulty.seen) == transport.REDIRECTS + 1


# ------------------------------------------------------------------------------------ credentials


def test_a_token_that_ends_while_we_read_is_refused_and_never_missing(faulty: FaultyHttp) -> None:
    faulty.answers = [cut(1_000_000), lambda request: request.fail(401)]
    with pytest.raises(Refused):
        read(HttpReader(Bearer("token")), faulty.url)


def test_each_request_has_a_signature_of_its_own(faulty: FaultyHttp) -> None:
    signed = iter("abc")
    faulty.answers = [cut(1_000_000)]
    reader = HttpReader(Presigned(lambda url: f"{url}?signature={next(signed)}"))
    assert sha256(read(reader, faulty.url)) == sha256(CONTENT)
    assert [path for _, path, _ in faulty.seen] == ["/file?signature=a", "/file?signature=b"]
    assert reader.exists(WHAT, faulty.url)
    assert faulty.seen[-1][0] == "GET"  # the signature is good for nothing else
    assert not reader.check_folder(WHAT, faulty.url)


@pytest.mark.parametrize("status", [401, 404, 500])
def test_no_signature_and_no_token_reaches_an_error_or_a_log(
    faulty: FaultyHttp, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    reader = HttpReader(Presigned(lambda url: f"{url}?signature=very-secret"))
    faulty.answers = [cut(10), lambda request: request.fail(status)]
    with pytest.raises(Exception, match=WHAT) as caught:
        read(reader, faulty.url)
    with FaultyHttp.start() as gone:
        url = gone.url
    with pytest.raises(Unavailable) as down:
        read(reader, url)
    import traceback

    said = "".join(traceback.format_exception(caught.value)) + "".join(traceback.format_exception(down.value))
    assert "very-secret" not in said + caplog.text + repr(Bearer("very-secret"))


def test_a_header_that_is_none_brings_no_signature_into_the_log(
    faulty: FaultyHttp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    faulty.answers = [
        lambda request: request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nno header\r\n\r\ncontent")
    ]
    reader = HttpReader(Presigned(lambda url: f"{url}?signature=very-secret"))
    assert read(reader, faulty.url) == b"content"
    assert faulty.seen[0][1] == "/file?signature=very-secret"
    assert "very-secret" not in caplog.text


def test_the_proxy_certificate_is_shown_to_the_storage_and_to_nobody_else(
    trusted: LoopbackTls, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ssl

    proxy = folder / "proxy"
    proxy.write_bytes(trusted.pair)
    monkeypatch.setenv("X509_USER_PROXY", str(proxy))
    with FaultyHttp.start(trusted) as asking, FaultyHttp.start(trusted) as other:
        shown: dict[str, list[bool]] = {"storage": [], "other": []}
        for name, server in (("storage", asking), ("other", other)):
            server.content = b"content"
            context = server.http.socket.context  # type: ignore[attr-defined]
            context.load_verify_locations(trusted.ca)
            context.verify_mode = ssl.CERT_OPTIONAL

            def note(request: Request, name: str = name, then: object = None) -> None:
                shown[name].append(bool(request.connection.getpeercert()))  # type: ignore[attr-defined]
                (then or Request.serve)(request)  # type: ignore[operator]

            server.answers = [lambda request, note=note: note(request)]  # type: ignore[misc]
        first, away = asking.answers[0], to(other.url)
        assert read(HttpReader(grid(None)), asking.url) == b"content"
        asking.answers = [lambda request: first.__defaults__[0](request, then=away)]  # type: ignore[index,misc]
        assert read(HttpReader(grid(None)), asking.url) == b"content"
    assert shown == {"storage": [True, True], "other": [False]}


def test_a_proxy_certificate_that_cannot_be_used_is_refused(
    faulty_tls: FaultyHttp, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "proxy").write_text("no certificate")
    monkeypatch.setenv("X509_USER_PROXY", str(folder / "proxy"))
    with pytest.raises(Refused):
        read(HttpReader(grid(None)), faulty_tls.url)


def test_a_token_of_rucios_comes_before_the_proxy_and_one_of_the_environment_after(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X509_USER_PROXY", str(folder / "proxy"))
    monkeypatch.setenv("BEARER_TOKEN", "of the environment")
    assert grid(None) == Bearer("of the environment")
    (folder / "proxy").touch()
    assert grid(None) == Nobody(str(folder / "proxy"))
    assert grid("of Rucio") == Bearer("of Rucio")
