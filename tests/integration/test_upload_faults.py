"""Uploads where something is out of the ordinary: other storage, other seams, other servers, names that collide.

What a plain upload does is in `test_upload`.
"""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from rucio_trace_policy import hooks
from rucio_trace_policy.database import PLUGIN
from rucio_trace_sandbox.pki import SandboxAuthority
from rucio_trace_sandbox.rest import in_process
from test_upload import SETTINGS, Place, place

if TYPE_CHECKING:
    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.xrootd import XRootD

__all__ = ["place"]

DATASET = ("--dataset", "test:set")

# Rucio's client kills itself before or after one of its own calls: the class, its method, and when.
DYING = """
import importlib, os, signal, sys
module, owner, name, when = sys.argv[1:5]
owner = getattr(importlib.import_module(module), owner)
inherited = getattr(owner, name)
def die(self, *args, **options):
    if when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    inherited(self, *args, **options)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, name, die)
from rucio_trace.cli import cli
cli.main(sys.argv[5:])
"""
CLIENT = ("rucio.client", "Client")
POSIX = ("rucio.rse.protocols.posix", "Default")


def _killed(place: Place, seam: tuple[str, ...], *argv: object) -> None:
    done = _patched(place, DYING, *seam, *argv)
    assert done.returncode == -signal.SIGKILL, done.stderr


def _patched(place: Place, code: str, *argv: object) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in argv]
    return place.rest.home.run(sys.executable, "-c", code, *words, RUCIO_TRACE_CONFIG=str(place.settings))


def _upload(*argv: object) -> tuple[object, ...]:
    return ("upload", "--rse", "DISK", "--scope", "test", *argv)


def _finished(place: Place, content: bytes) -> None:
    assert place.states("product.dat") == {"DISK": "A"}
    assert place.rucio.pfn_path(place.rse, "product.dat").read_bytes() == content
    assert place.origin("product.dat") is not None
    assert len(list(place.rest.root.list_replicas([{"scope": "test", "name": "product.dat"}], all_states=True))) == 1


def _rules(place: Place) -> list[str]:
    return [rule["rse_expression"] for rule in place.rest.root.list_did_rules("test", "product.dat")]


@pytest.mark.parametrize(
    "seam",
    [
        (*CLIENT, "add_replicas", "after"),  # no rule would keep the file
        (*CLIENT, "set_metadata", "before"),
        (*CLIENT, "set_metadata", "after"),
        (*POSIX, "put", "after"),  # under its temporary name
        (*POSIX, "rename", "after"),
        (*CLIENT, "update_replicas_states", "after"),
    ],
    ids=lambda seam: f"{seam[3]} {seam[2]}",
)
def test_a_killed_upload_without_a_dataset_continues_and_one_rule_keeps_the_file(
    place: Place, seam: tuple[str, ...]
) -> None:
    path = place.file("product.dat", os.urandom(5_000))
    _killed(place, seam, *_upload(path))
    place.upload(path)
    _finished(place, path.read_bytes())
    assert _rules(place) == ["DISK"]


@pytest.mark.parametrize(
    "seam",
    [
        (*CLIENT, "add_dataset", "after"),
        (*POSIX, "rename", "after"),
        (*CLIENT, "attach_dids", "before"),  # available, and only the dataset's rule would keep it
    ],
    ids=lambda seam: f"{seam[3]} {seam[2]}",
)
def test_a_killed_upload_into_a_dataset_continues_and_the_dataset_has_the_file(
    place: Place, seam: tuple[str, ...]
) -> None:
    path = place.file("product.dat", os.urandom(5_000))
    _killed(place, seam, *_upload(path, *DATASET))
    place.upload(path, *DATASET)
    _finished(place, path.read_bytes())
    assert [file["name"] for file in place.rest.root.list_files("test", "set")] == ["product.dat"]
    assert len(list(place.rest.root.list_did_rules("test", "set"))) == 1


@pytest.mark.parametrize(
    "seam",
    [
        (*POSIX, "rename", "after"),
        (*CLIENT, "set_metadata", "before"),  # registered, bytes there, and no word of the producer yet
        (*CLIENT, "set_metadata", "after"),
    ],
    ids=lambda seam: f"{seam[3]} {seam[2]}",
)
def test_a_killed_upload_that_registers_afterwards_continues(place: Place, seam: tuple[str, ...]) -> None:
    path = place.file("product.dat", os.urandom(5_000))
    _killed(place, seam, *_upload("--register-after-upload", path))
    assert place.states("product.dat").get("DISK") != "A"
    place.upload("--register-after-upload", path)
    _finished(place, path.read_bytes())
    assert _rules(place) == ["DISK"]


def test_other_bytes_under_a_known_name_are_refused_when_registering_afterwards_too(place: Place) -> None:
    place.upload(place.file("product.dat", b"first"))
    done = place.upload("--register-after-upload", place.file("product.dat", b"other"), code=3)
    assert "these bytes need another name" in done.stderr


def test_a_registration_that_fails_at_the_end_is_no_success(place: Place) -> None:
    path = place.file("product.dat")
    failing = """
import sys
from rucio.client import Client
from rucio.common.exception import RucioException
def fail(self, *args, **options):
    raise RucioException("the server is gone")
Client.update_replicas_states = fail
from rucio_trace.cli import cli
cli.main(sys.argv[1:])
"""
    done = _patched(place, failing, *_upload(path))
    assert done.returncode == 3, done.stderr
    assert place.states("product.dat") == {"DISK": "C"}
    place.upload(path)
    _finished(place, path.read_bytes())


def test_two_files_of_one_name_are_refused_before_anything_is_sent(place: Place) -> None:
    first, second = place.file("a/product.dat", b"first"), place.file("b/product.dat", b"second")
    done = place.upload(first, second, code=3)
    assert "test:product.dat" in done.stderr
    assert str(first) in done.stderr
    assert str(second) in done.stderr
    assert place.states("product.dat") == {}


@pytest.mark.parametrize("options", [(), ("-r",)])
def test_a_name_that_is_no_file_is_refused_before_anything_is_sent(place: Place, options: tuple[str, ...]) -> None:
    place.file("folder/product.dat")
    done = place.upload(*options, place.files / "folder", place.files / "typo", code=2)
    assert "typo: no such file" in done.stderr
    assert place.states("product.dat") == {}


def test_one_file_named_twice_is_uploaded_once(place: Place) -> None:
    path = place.file("product.dat", b"the same")
    place.upload(path, path)
    _finished(place, b"the same")


def test_a_place_that_rucio_would_not_register_is_refused(place: Place) -> None:
    """With --pfn on a deterministic RSE the stock client sends the bytes and registers nothing."""
    path = place.file("product.dat")
    done = place.upload("--pfn", f"file://localhost{place.rse.folder}/elsewhere.dat", path, code=3)
    assert "--pfn" in done.stderr
    assert place.rse.folder is not None
    assert not (place.rse.folder / "elsewhere.dat").exists()


def test_a_server_without_our_plugin_gets_no_dataset_either(place: Place) -> None:
    place.rucio.configure(metadata={"plugins": "rucio.core.did_meta_plugins.json_meta.JSONDidMeta"})
    place.file("campaign/one.dat")
    done = place.upload("-r", place.files / "campaign", code=3)
    assert "metadata plugin of rucio-trace" in done.stderr
    assert list(place.rest.root.list_dids("test", [{}], did_type="all")) == []


def test_a_server_that_keeps_the_trace_as_an_ordinary_key_gets_no_bytes(rucio_postgresql: EmbeddedRucio) -> None:
    """Rucio's JSON plugin before ours takes every key, and lets anybody change or delete it."""
    rucio = rucio_postgresql
    hooks.install(rucio.engine)
    rucio.configure(metadata={"plugins": f"rucio.core.did_meta_plugins.json_meta.JSONDidMeta,{PLUGIN}"})
    SandboxAuthority(rucio.folder / "federation").admit("PRODUCER", rses=(), create=("test",))
    (rucio.folder / "rucio-trace.toml").write_text(SETTINGS)
    rse = rucio.add_posix_rse("DISK")
    with in_process(rucio.folder / "rest") as rest:
        place = Place(rucio, rest, rse)
        done = place.upload(place.file("product.dat"), code=3)
        assert "ordinary" in done.stderr
        assert not rucio.pfn_path(rse, "product.dat").exists()
        assert place.states("product.dat") == {"DISK": "C"}


def test_without_a_configuration_of_rucio_the_command_says_so(place: Place, tmp_path: Any) -> None:
    path = place.file("product.dat")
    environment = {
        key: value for key, value in place.rest.home.environment().items() if not key.startswith("RUCIO_")
    } | {"RUCIO_TRACE_CONFIG": str(place.settings), "HOME": str(tmp_path)}
    environment.pop("VIRTUAL_ENV", None)
    done = subprocess.run(
        place.command(*_upload(path)), env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    assert "rucio.cfg" in done.stderr


def test_a_presigned_url_is_not_shown(place: Place) -> None:
    path = place.file("product.dat")
    leaking = """
import sys
from rucio.rse.protocols.posix import Default
inherited = Default.put
def put(self, source, target, *args, **options):
    self.logger(20, "sending to https://store.example/bucket/x?X-Amz-Signature=deadbeef&a=b now")
    raise Exception("403 for https://store.example/bucket/x?X-Amz-Signature=deadbeef")
Default.put = put
from rucio_trace.cli import cli
cli.main(sys.argv[1:])
"""
    done = _patched(place, leaking, *_upload(path))
    assert done.returncode == 3
    assert "https://store.example/bucket/x" in done.stderr
    assert "deadbeef" not in done.stderr


@pytest.mark.parametrize("options", [(), ("--no-progress",)])
def test_on_a_terminal_one_display_shows_reading_and_sending(place: Place, options: tuple[str, ...]) -> None:
    path = place.file("large.dat", bytes(64 << 20))
    terminal, inside = pty.openpty()
    environment = place.rest.home.environment(RUCIO_TRACE_CONFIG=str(place.settings))
    running = subprocess.Popen(place.command(*_upload(path, *options)), env=environment, stdout=inside, stderr=inside)
    os.close(inside)
    drawn = b""
    with contextlib.suppress(OSError):  # the terminal is gone with its last process
        while more := os.read(terminal, 1 << 16):
            drawn += more
    os.close(terminal)
    assert running.wait() == 0, drawn
    assert drawn.rstrip().endswith(b"uploaded and traced")
    for word in (b"reading ", b"sending "):
        assert (word in drawn) is not bool(options), drawn


def test_without_rucios_client_the_command_names_the_extra(place: Place) -> None:
    without = "import sys; sys.modules['rucio'] = None; from rucio_trace.cli import main; main()"
    for argv in (_upload(place.file("product.dat")), ("download", "test:product.dat")):
        done = _patched(place, without, *argv)
        assert done.returncode == 3
        assert "install rucio-trace[client]" in done.stderr


def test_an_upload_to_xrootd_arrives_and_continues_after_its_death(place: Place, xrootd: XRootD) -> None:
    rse = place.rucio.add_xrootd_rse("XRD", xrootd, f"upload-{os.urandom(4).hex()}")
    path = place.file("product.dat", os.urandom(300_000))
    arguments = ("upload", "--rse", "XRD", "--scope", "test", path)
    _killed(place, ("rucio.rse.protocols.xrootd", "Default", "rename", "after"), *arguments)
    assert place.states("product.dat") == {"XRD": "C"}
    place.run(*arguments)
    assert place.states("product.dat") == {"XRD": "A"}
    assert place.rucio.pfn_path(rse, "product.dat").read_bytes() == path.read_bytes()
    assert place.origin("product.dat") is not None
