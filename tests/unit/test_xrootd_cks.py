"""The checksum program for XRootD: what it answers, what it refuses, what it never keeps."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import blake3
import pytest

from rucio_trace.digest import ALGORITHMS, digest_file
from rucio_trace.statement import parse_time
from rucio_trace.xrootd_cks import main

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = Path(sys.executable).with_name("rucio-trace-xrootd-cks")
MIB = 1 << 20


class Asked:
    """What the program said and how it ended."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.status = 0
        try:
            main(arguments)
        except SystemExit as end:
            self.status = int(end.code or 0)
        self.line, self.complaint = capsys.readouterr()


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., Asked]:
    return lambda *arguments: Asked(capsys, *map(str, arguments))


@pytest.mark.parametrize("size", [0, 1, 4096, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 41 * MIB + 5])
def test_the_answer_is_the_digest_and_when_it_was_read(tmp_path: Path, ask: Callable[..., Asked], size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    before = datetime.now(UTC)
    digest, read, stated, how = ask("--localroot", tmp_path, "blake3", "/file").line.split()
    assert digest == blake3.blake3(content).hexdigest()
    assert before <= parse_time(read.removeprefix("read=")) <= datetime.now(UTC)
    assert stated == f"size={size}"
    assert how in ("direct", "cached")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_other_clients_ask_for_stands_alone(tmp_path: Path, ask: Callable[..., Asked], algorithm: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(17 * MIB))
    words = ask("--localroot", tmp_path, algorithm.lower(), "/file", "user.1:2@host", "name").line.split()
    assert words[0] == digest_file(file, [algorithm]).hashes[algorithm]
    assert (len(words) == 1) == (algorithm != "BLAKE3")


@pytest.mark.parametrize("name", ["a b", "ünïcode …", "new\nline", "--help", "?#%20", os.fsdecode(b"\xff")])
def test_any_name_may_be_asked_for(tmp_path: Path, ask: Callable[..., Asked], name: str) -> None:
    (tmp_path / name).write_bytes(b"content")
    assert ask("--localroot", tmp_path, f"/{name}").line.startswith(blake3.blake3(b"content").hexdigest())
    assert ask("--localroot", "/", f"{tmp_path}/{name}").status == 0


def test_a_byte_that_flips_with_its_times_put_back_is_seen_at_once(tmp_path: Path, ask: Callable[..., Asked]) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(MIB))
    first, before = ask("--localroot", tmp_path, "/file").line, file.stat()
    file.write_bytes(bytes(MIB - 1) + b"\1")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert ask("--localroot", tmp_path, "/file").line.split()[0] != first.split()[0]


def test_the_disk_is_read_past_the_page_cache(tmp_path: Path, ask: Callable[..., Asked]) -> None:
    file = tmp_path / "file"
    with file.open("wb") as written:
        written.write(os.urandom(20 * MIB))
        written.flush()
        os.fsync(written.fileno())
        os.posix_fadvise(written.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if _cached(file):
        pytest.skip("this file system lives in memory")
    assert ask("--localroot", tmp_path, "/file").line.endswith(" direct\n")
    assert _cached(file) == 0


def _cached(file: Path) -> int:
    told = subprocess.run(["fincore", "-b", "-n", "-o", "RES", file], capture_output=True, text=True, check=True)
    return int(told.stdout)


@pytest.mark.skipif(not os.access("/sys/kernel/notes", os.R_OK), reason="no such file here, of a size that is true")
def test_a_file_system_that_cannot_be_read_past_the_cache_is_read_and_it_is_said(ask: Callable[..., Asked]) -> None:
    words = ask("--localroot", "/sys/kernel", "/notes").line.split()
    assert words[0] == blake3.blake3(Path("/sys/kernel/notes").read_bytes()).hexdigest()
    assert words[-1] == "cached"


# -------------------------------------------------------------------------------------------- refusals


def refused(asked: Asked, status: int, words: str) -> None:
    assert (asked.status, asked.line) == (status, "")
    assert re.search(words, asked.complaint)
    assert asked.complaint.count("\n") == 1


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/missing", errno.ENOENT, "no such file"),
        ("/missing\nfile", errno.ENOENT, r"/missing\\nfile: no such file"),
        ("/dangling", errno.ENOENT, "no such file"),
        ("/folder", errno.EISDIR, "a directory"),
        ("/pipe", errno.ENOTBLK, "no regular file"),
        ("/file/below", errno.ENOTDIR, "Not a directory"),
        ("/loop", errno.ELOOP, "symbolic links"),
        ("/out", errno.EACCES, "leads out"),
        ("/folder/out/file", errno.EACCES, "leads out"),
        ("/../beside/file", errno.EACCES, "leads out"),
        ("/..", errno.EACCES, "leads out"),
        ("/", errno.EACCES, "leads out"),
    ],
)
def test_what_is_no_file_of_the_server_has_no_digest(
    tmp_path: Path, ask: Callable[..., Asked], path: str, status: int, words: str
) -> None:
    root, beside = tmp_path / "root", tmp_path / "root-beside"
    (root / "folder").mkdir(parents=True)
    beside.mkdir()
    (tmp_path / "beside").symlink_to(beside)
    for file in (root / "file", beside / "file"):
        file.write_bytes(b"content")
    os.mkfifo(root / "pipe")
    for name, to in {"dangling": "nowhere", "loop": "loop", "out": beside / "file", "folder/out": beside}.items():
        (root / name).symlink_to(to)
    refused(ask("--localroot", root, "blake3", path), status, words)


def test_links_may_lead_to_where_files_may_lie(tmp_path: Path, ask: Callable[..., Asked]) -> None:
    names, disk = tmp_path / "names", tmp_path / "disk"
    for folder in (names, disk):
        folder.mkdir()
    (disk / "0001").write_bytes(b"content")
    (names / "file").symlink_to(disk / "0001")
    (names / "inside").symlink_to("file")
    refused(ask("--localroot", names, "/file"), errno.EACCES, "leads out")
    within = ("--within", names, "--within", disk)
    assert ask("--localroot", names, *within, "/inside").line.startswith(blake3.blake3(b"content").hexdigest())


def test_a_disk_that_is_not_mounted_is_no_missing_file(tmp_path: Path, ask: Callable[..., Asked]) -> None:
    refused(ask("--localroot", tmp_path / "gone", "/file"), errno.ENODEV, "is it mounted")
    refused(ask("--localroot", tmp_path, "--within", tmp_path / "gone", "/file"), errno.ENODEV, "is it mounted")


@pytest.mark.parametrize("arguments", [[], ["/file"], ["--localroot", "/"], ["--localroot", "/", "blake3", "file"]])
def test_a_wrong_configuration_is_no_missing_file(ask: Callable[..., Asked], arguments: list[str]) -> None:
    refused(ask(*arguments), errno.EINVAL, "rucio-trace-xrootd-cks: ")


def test_an_unknown_algorithm_is_named(tmp_path: Path, ask: Callable[..., Asked]) -> None:
    (tmp_path / "file").touch()
    refused(ask("--localroot", tmp_path, "crc32c", "/file"), errno.EOPNOTSUPP, "crc32c.*blake3.*adler32")


def test_the_clients_name_is_never_an_option(tmp_path: Path, ask: Callable[..., Asked]) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("/etc/passwd")
    for name in ("--within=/", "--help", "--localroot=/"):
        assert ask("--localroot", tmp_path, "blake3", "/file", name).line.startswith(
            blake3.blake3(b"content").hexdigest()
        )
        refused(ask("--localroot", tmp_path, "blake3", "/link", name), errno.EACCES, "leads out")


def _touch_secretly(file: Path) -> None:
    before = file.stat()
    with file.open("r+b") as open_file:
        open_file.write(b"other")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replace(file: Path) -> None:
    (file.parent / "new").write_bytes(file.read_bytes())
    (file.parent / "new").rename(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: os.truncate(file, 20 * MIB),
        lambda file: file.open("ab").write(b"more"),
        _touch_secretly,
        _replace,
        Path.unlink,
    ],
    ids=["shrinks", "grows", "is written to, its times put back", "is replaced", "is removed"],
)
def test_a_file_that_changes_while_it_is_read_has_no_digest(
    tmp_path: Path, ask: Callable[..., Asked], monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]
) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(48 * MIB))
    changes = [change]

    class Hash:
        """The library's, and the moment between two blocks."""

        def __init__(self, **options: int) -> None:
            self._hash = real(**options)
            self.hexdigest = self._hash.hexdigest

        def update(self, block: memoryview) -> None:
            self._hash.update(block)
            if changes:
                changes.pop()(file)

    real = blake3.blake3
    monkeypatch.setattr(blake3, "blake3", Hash)
    refused(ask("--localroot", tmp_path, "/file"), errno.ETXTBSY, "while it was read")


def test_the_installed_program_answers_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    done = subprocess.run([PROGRAM, "--localroot", tmp_path, "/file"], capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    done = subprocess.run([PROGRAM, "--localroot", tmp_path, "/missing"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (errno.ENOENT, "")


def test_it_starts_without_what_it_does_not_need() -> None:
    code = "import sys, rucio_trace.xrootd_cks; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in loaded if name.startswith("rucio")}
    assert ours <= {"rucio_trace", "rucio_trace.xrootd_cks"}
    assert not {"cryptography", "sqlalchemy", "click", "dataclasses", "inspect", "logging"} & set(loaded)
