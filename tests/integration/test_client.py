"""A real trace service, asked by both clients: what goes in comes out, and no failure loses or doubles anything."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import samples
from client_kit import Service
from unit.authority import Authority, made

from rucio_trace.client import (
    AsyncClient,
    Client,
    Denied,
    NotTaken,
    ServiceUnavailable,
)
from rucio_trace.config import Settings, Store
from rucio_trace.configured import open_service
from rucio_trace.faults import UnknownIssuer
from rucio_trace.statement import Event
from rucio_trace.store import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rucio_trace_sandbox.tls import LoopbackTls


@pytest.fixture(scope="module")
def service(sandbox_folder: Path) -> Iterator[Service]:
    folder = sandbox_folder / "client-service"
    folder.mkdir()
    (folder / "ca.pem").write_bytes(samples.authority().pem)
    service = Service(folder, 'anchors = ["ca.pem"]')
    yield service
    service.close()


def test_what_was_registered_comes_back_as_it_was_signed(service: Service) -> None:
    trace = samples.trace()
    with service.client() as client:
        assert client.ready()
        (answer,) = client.register([trace])
        assert (answer.id, answer.outcome) == (trace.id, Outcome.STORED)
        found = client.get(trace.id)
        assert found is not None
        assert (found.position, found.trace.message) == (answer.position, trace.message)
        assert found.trace.signature == trace.signature
        assert client.get("no-such-id") is None
        assert client.register([]) == []


def test_repeating_is_safe_and_each_trace_has_its_answer(service: Service) -> None:
    known, new, unsigned = samples.trace(), samples.trace(), samples.unsigned()
    stranger = made(Authority.root().issue().signer, Event.CREATE)
    with service.client() as client:
        client.register([known])
        answers = client.register([known, unsigned, new, stranger])
    assert [a.outcome for a in answers] == ["known", "refused", "stored", "refused"]
    assert any(isinstance(fault, UnknownIssuer) for fault in answers[3].faults)


def test_the_list_of_a_batch_goes_with_it(service: Service) -> None:
    lines = [samples.line(samples.product(n)) for n in range(3)]
    batch = samples.batch(lines)
    with service.client() as client:
        (alone,) = client.register([batch])
        assert alone.outcome is Outcome.REFUSED
        (answer,) = client.register([batch], lists={batch.id: samples.write_lines(lines)})
        assert answer.outcome is Outcome.STORED


def test_more_than_a_request_holds_is_registered_all_the_same(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rucio_trace.client.talk.TRACES_A_REQUEST", 7)
    traces = [samples.trace() for _ in range(20)]
    with service.client() as client:
        answers = client.register(traces)
    assert [answer.id for answer in answers] == [trace.id for trace in traces]
    assert {answer.outcome for answer in answers} == {Outcome.STORED}


def test_who_awaits_gets_the_same(service: Service) -> None:
    traces = [samples.trace() for _ in range(5)]

    async def ask() -> None:
        async with AsyncClient(service.url, service.token) as client:
            answers = await asyncio.gather(*(client.register([trace]) for trace in traces))
            assert {answer.outcome for (answer,) in answers} == {Outcome.STORED}
            found = await client.get(traces[0].id)
            assert found is not None
            assert found.trace.message == traces[0].message

    asyncio.run(ask())


def test_who_may_not_register_is_told_what_to_do(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for client in (service.client(token=False), Client(service.url, "rt_a-wrong-secret")):
        with client, pytest.raises(Denied, match="token") as caught:
            client.register([samples.trace()])
        assert "wrong-secret" not in f"{caught.value!r} {caught.value}"
    with service.client() as client:
        client.register([samples.trace()])
    assert service.token not in caplog.text
    assert "wrong-secret" not in caplog.text


def test_a_token_that_is_replaced_in_its_file_needs_no_restart(service: Service, folder: Path) -> None:
    file = folder / "token"
    file.write_text("rt_ended\n")

    async def ask() -> None:
        async with AsyncClient(service.url, lambda: file.read_text().strip()) as client:
            file.write_text(service.token)
            (answer,) = await client.register([samples.trace()])
            assert answer.outcome is Outcome.STORED

    with open_service(Settings(store=Store(service=service.url, token_file=file))) as store:
        with pytest.raises(Denied):
            store.register([samples.trace()])
        asyncio.run(ask())
        (answer,) = store.register([samples.trace()])
        assert answer.outcome is Outcome.STORED
        file.unlink()  # it is looked at again only when it is refused
        assert store.register([samples.trace()])


def test_a_path_below_which_there_is_no_service_is_told(service: Service) -> None:
    with Client(f"{service.url}/elsewhere", patience=0.1) as client, pytest.raises(NotTaken, match="Not Found"):
        client.register([samples.trace()])


def test_nobody_there_is_not_found_out(service: Service) -> None:
    with Client("http://127.0.0.1:9", patience=0.5) as client:
        begun = time.monotonic()
        assert not client.ready()
        with pytest.raises(ServiceUnavailable, match=r"127\.0\.0\.1:9"):
            client.get("x")
        assert time.monotonic() - begun < 5


def test_a_service_that_starts_again_is_waited_for(folder: Path) -> None:
    (folder / "ca.pem").write_bytes(samples.authority().pem)
    service = Service(folder, 'anchors = ["ca.pem"]', started=False)
    trace = samples.trace()
    try:
        with service.client(patience=60) as client, ThreadPoolExecutor() as pool:
            asked = pool.submit(client.register, [trace])
            time.sleep(0.5)
            service.start()
            (answer,) = asked.result(60)
        assert answer.outcome is Outcome.STORED
    finally:
        service.close()


def test_what_waits_for_a_service_is_delivered_once_it_is_there(folder: Path) -> None:
    (folder / "ca.pem").write_bytes(samples.authority().pem)
    service = Service(folder, 'anchors = ["ca.pem"]')
    first, second, third = (samples.trace() for _ in range(3))
    try:
        service.kill()
        with service.client(patience=0.2, spool=folder / "spool") as client:
            (answer,) = client.register([first])
            assert answer.kept_in is not None
        service.start()
        with service.client(spool=folder / "spool") as client:
            (answer,) = client.register([second])
            assert (answer.outcome, client.spool and client.spool.count()) == (Outcome.STORED, 0)
            (answer,) = client.register([first])
            assert answer.outcome is Outcome.KNOWN
        service.kill()

        async def keep() -> None:
            async with AsyncClient(service.url, service.token, patience=0.2, spool=folder / "spool") as client:
                (answer,) = await client.register([third])
                assert answer.kept_in is not None
                service.start()
                assert await client.deliver() == 0

        asyncio.run(keep())
        with service.store() as store:
            assert [s.id for s in store.since(0)] == [first.id, second.id, third.id]
    finally:
        service.close()


def test_only_a_service_whose_certificate_is_vouched_for_gets_the_token(folder: Path, tls: LoopbackTls) -> None:
    (folder / "ca.pem").write_bytes(samples.authority().pem)
    service = Service(folder, 'anchors = ["ca.pem"]', certificate=tls.certificate, key=tls.key)
    assert service.url.startswith("https://")
    try:
        with service.client(patience=60) as client:
            begun = time.monotonic()
            with pytest.raises(ServiceUnavailable, match="a certificate that is not trusted"):
                client.register([samples.trace()])
            assert time.monotonic() - begun < 10  # to try again would not help
        with service.client(tls=ssl.create_default_context(cafile=tls.ca)) as client:
            (answer,) = client.register([samples.trace()])
            assert answer.outcome is Outcome.STORED
    finally:
        service.close()
