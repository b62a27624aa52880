"""A product's way through the federation of `docker/compose.yaml`, by the commands of docs/containers.md.

The tests of this file build on each other, from top to bottom.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from functools import partial
from typing import TYPE_CHECKING

import pytest
from docker.errors import NotFound
from federation import PROJECT, ROOT

if TYPE_CHECKING:
    from federation import Federation

DID = "eo:product.zip"
JOBS = {"keys", "setup"}
SERVERS = {"postgres", "activemq", "xrd-a", "xrd-b", "fts", "rucio"}
DAEMONS = {"submitter", "poller", "finisher", "hermes", "recorder-a", "recorder-b"}


@pytest.fixture(scope="module")
def documented() -> list[str]:
    """The commands that docs/containers.md shows, in its order: build and start, upload, look, check, remove."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs/containers.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    return blocks


def events(federation: Federation) -> set[tuple[str, str | None, str]]:
    """What is in the trace store of the product: event, RSE, site."""
    lines = federation.client(f"sh -c 'rucio-trace history --json {DID} || true'").splitlines()
    found = [json.loads(line)["statement"] for line in lines]
    return {(one["event"], one.get("rse"), one["site"]) for one in found}


def test_every_service_comes_up_healthy(federation: Federation, documented: list[str]) -> None:
    federation.shell(documented[0])
    for service in sorted(SERVERS | DAEMONS):
        container = federation.container(service)

        def healthy(container=container) -> bool:
            container.reload()
            assert container.status == "running", f"{container.name}: {container.logs(tail=20).decode()}"
            return container.attrs["State"]["Health"]["Status"] == "healthy"

        federation.wait(f"{service}: healthy", healthy)
    for job in JOBS:
        assert federation.container(job).attrs["State"]["ExitCode"] == 0


def test_no_service_may_do_what_it_need_not(federation: Federation) -> None:
    for service in sorted(SERVERS | DAEMONS):
        host = federation.container(service).attrs["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert "no-new-privileges:true" in host["SecurityOpt"], service
        assert not host["Privileged"], service
        assert not host["PortBindings"], service
        assert federation.run(service, "id", "-u") == (0, "10001\n"), service
        assert federation.run(service, "touch", "/etc/here")[0] != 0, service
        assert federation.run(service, "grep", "-E", "CapEff:\\s*0+$", "/proc/1/status")[0] == 0, service


def test_a_recorder_sees_no_other_sites_key(federation: Federation) -> None:
    for service, other in (("recorder-a", "b"), ("recorder-b", "a"), ("rucio", "a"), ("rucio", "b")):
        # Where there is such a folder at all it is the image's own, in which nothing is.
        status, listed = federation.run(service, "ls", f"/federation/site-{other}")
        assert status != 0 or listed == "", listed
    for secret in ("database", "broker", "client", "server"):
        status, listed = federation.run("recorder-a", "ls", f"/federation/{secret}")
        assert status != 0 or listed == "", listed
    said = federation.run("recorder-a", "cat", "/federation/site-a/etc/rucio.cfg")[1]
    assert "[database]" in said
    assert "userpass_pwd" not in said
    assert "messaging" not in said


def test_a_product_is_uploaded_and_copied(federation: Federation, documented: list[str]) -> None:
    with zipfile.ZipFile(federation.products / "product.zip", "w") as product:
        product.writestr("product/band.dat", os.urandom(300_000))
    federation.shell(documented[1])
    expected = {("CREATE", None, "PRODUCER"), ("COPY", "XRD-A", "SITE-A"), ("COPY", "XRD-B", "SITE-B")}
    try:
        federation.wait("a trace of each copy", lambda: events(federation) == expected, 90)
    except AssertionError:
        # On a slow machine the copy was not done when the poller asked, and it will not ask again for ten minutes.
        federation.run("poller", "rucio-conveyor-poller", "--run-once", "--older-than", "0")
        federation.wait("a trace of each copy", lambda: events(federation) == expected, 120)
    shown = federation.shell(documented[2])
    assert "GENUINE, 2/2 good" in shown
    assert "nothing waits" in shown or "copied" in shown or "ended as" in shown
    metadata = federation.client(f"rucio did metadata list --plugin ALL {DID}")
    assert re.search(r"trace_status:\s+GENUINE", metadata)


def test_stock_upload_is_traced_too(federation: Federation) -> None:
    (federation.products / "stock.bin").write_bytes(os.urandom(1000))
    federation.shell(
        'docker-compose run --rm --no-deps -T -v "$PRODUCTS:/data:ro" client '
        "rucio upload --rse XRD-B --scope eo /data/stock.bin"
    )
    asked = "sh -c 'rucio-trace history eo:stock.bin || true'"
    federation.wait("its trace", lambda: "SITE-B" in federation.client(asked))


def test_the_file_is_checked_with_the_tool_alone(federation: Federation, documented: list[str]) -> None:
    assert "GENUINE" in federation.shell(documented[3])
    product = federation.products / "product.zip"
    product.write_bytes(product.read_bytes()[:-1] + b"!!")
    check = documented[3].splitlines()[-1]
    assert "TAMPERED" in federation.shell(f'cd "$PRODUCTS"\n{check}', status=1)


def test_a_replica_changed_on_its_storage_is_not_handed_over(federation: Federation) -> None:
    script = "f=$(find /data/rucio -name product.zip) && printf changed | dd of=$f conv=notrunc status=none"
    assert federation.run("xrd-b", "sh", "-c", script) == (0, "")
    download = f"rucio-trace download --dir /tmp {DID} --rses"
    # The other site's copy is as it was.
    federation.client(f"sh -c '{download} XRD-A && test -s /tmp/eo/product.zip'")
    said = federation.client(f"sh -c '{download} XRD-B; s=$?; find /tmp -type f -name product.zip; exit $s'", status=3)
    # That its ADLER32 is another one tells Rucio's own client already: it did not come.
    assert "/tmp/eo/product.zip" not in said


def test_messages_of_rucio_reach_the_broker(federation: Federation) -> None:
    def ask(query: str) -> str:
        argv = ["psql", "-h", "/tmp", "-U", "postgres", "-At", "-c", query, "rucio"]
        return federation.run("postgres", *argv)[1].strip()

    federation.wait("an empty outbox of Rucio's", lambda: ask("SELECT count(*) FROM messages") == "0")
    sent = ask("SELECT DISTINCT event_type FROM messages_history WHERE services = 'activemq' OR services IS NULL")
    assert "transfer-done" in sent.splitlines(), sent


def test_health_is_not_a_promise_kept_by_nobody(federation: Federation) -> None:
    health = partial(federation.run, "recorder-a", "python", "-m", "rucio_trace_daemons.health")
    assert health("traceability-recorder")[0] == 0
    assert health("traceability-nobody")[0] == 1
    postgres = federation.container("postgres")
    postgres.stop(timeout=20)
    try:
        assert health("traceability-recorder")[0] != 0
        assert federation.run("rucio", "id")[0] == 0
    finally:
        postgres.start()
    federation.wait("recovery", lambda: health("traceability-recorder")[0] == 0)


def test_another_up_continues_with_what_is_there(federation: Federation) -> None:
    before = events(federation)
    assert before
    federation.shell("docker-compose stop --timeout 20")
    federation.shell("docker-compose up --detach --no-build")
    federation.wait("the server", lambda: federation.run("rucio", "id")[0] == 0)
    assert events(federation) >= before
    # What is uploaded now is recorded now.
    (federation.products / "later.bin").write_bytes(os.urandom(1000))
    federation.shell(
        'docker-compose run --rm -T -v "$PRODUCTS:/data:ro" client '
        "rucio-trace upload --rse XRD-A --scope eo /data/later.bin"
    )
    asked = "sh -c 'rucio-trace history eo:later.bin || true'"
    federation.wait("its trace", lambda: "SITE-A" in federation.client(asked))


def test_the_overlay_is_understood(federation: Federation) -> None:
    given = "FTS_IMAGE=x:1 FTS_DB_PASSWORD=x IAM_DB_PASSWORD=x"
    overlay = "-f docker/compose.yaml -f docker/compose.external.yaml"
    shown = federation.shell(f"{given} docker-compose {overlay} config")
    assert "indigoiam/iam-login-service" in shown
    assert "rucio-trace-rucio" in shown


def test_down_leaves_nothing(federation: Federation, documented: list[str]) -> None:
    federation.shell(documented[4])
    client = federation.engine.client
    label = {"label": f"com.docker.compose.project={PROJECT}"}
    assert client.containers.list(all=True, filters=label) == []
    assert client.volumes.list(filters=label) == []
    with pytest.raises(NotFound):
        client.networks.get("rucio-trace.example")
