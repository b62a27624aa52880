"""What waits on disk for a service that is away: nothing is lost, nothing blocks, nothing goes twice."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import samples
from test_client_talk import answered, problem, run

from rucio_trace.client import ServiceUnavailable, Spool, SpoolBroken, SpoolFull
from rucio_trace.client.asking import Answer, Unreached
from rucio_trace.client.spool import FAILURES_IN_A_ROW, registering
from rucio_trace.client.talk import Talk
from rucio_trace.store import Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from rucio_trace.envelope import Trace

URL = "https://traces.example.org"
AWAY = Unreached("nobody is there", final=True)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", URL)


def hand_in(spool: Spool, traces: list[Trace], *answers: Answer | Unreached) -> tuple[list[Any], list[list[str]]]:
    """What becomes of *traces*, and the ids of the traces in each request."""
    found, asked, _ = run(registering(Talk(URL, 0.1), spool, traces), *answers)
    return found, [[item["id"] for item in json.loads(request.body or b"[]")] for request in asked]


def told(*traces: Trace, outcome: str = "stored", reason: str | None = None) -> Answer:
    results = [{"id": t.id, "outcome": outcome, "position": None, "reason": reason, "faults": []} for t in traces]
    return answered({"results": results})


def kept(spool: Spool, *traces: Trace) -> None:
    """Let *traces* wait, each in a file of its own."""
    for trace in traces:
        spool._rests_until = 0.0
        answers, _ = hand_in(spool, [trace], AWAY)
        assert answers[0].kept_in == str(spool.waiting()[-1])
    spool._rests_until = 0.0


def test_what_cannot_be_delivered_waits_and_goes_first(spool: Spool) -> None:
    a, b, c = (samples.trace() for _ in range(3))
    (answer,), _ = hand_in(spool, [a], AWAY)
    assert (answer.id, answer.outcome, spool.count()) == (a.id, Outcome.UNDECIDED, 1)
    assert "nobody is there" in (answer.reason or "")
    kept(spool, b)
    (answer,), asked = hand_in(spool, [c], told(a), told(b, outcome="known"), told(c))
    assert (answer.outcome, asked) == (Outcome.STORED, [[a.id], [b.id], [c.id]])
    assert not spool.waiting()
    assert not spool.refused()


def test_a_service_that_is_away_is_not_tried_for_every_batch(spool: Spool) -> None:
    hand_in(spool, [samples.trace()], AWAY)
    _, asked = hand_in(spool, [samples.trace()])
    assert (asked, spool.count()) == ([], 2)


def test_what_was_kept_is_as_it_was_signed_and_nobody_elses_to_read(spool: Spool) -> None:
    trace = samples.trace()
    kept(spool, trace)
    (path,) = spool.waiting()
    assert json.loads(path.read_bytes())["signature"]["message"] == trace.message
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_what_will_never_be_taken_is_set_aside_with_its_reason_and_blocks_nothing(spool: Spool) -> None:
    bad, good, new = (samples.trace() for _ in range(3))
    kept(spool, bad, good)
    hand_in(spool, [new], told(bad, outcome="refused", reason="nobody trusts it"), told(good), told(new))
    assert not spool.waiting()
    (path,) = spool.refused()
    (entry,) = json.loads(path.read_bytes())["refused"]
    assert (entry["reason"], json.loads(entry["item"])["id"]) == ("nobody trusts it", bad.id)


@pytest.mark.parametrize("status", [400, 409, 413, 422])
def test_a_batch_that_is_refused_as_a_whole_is_set_aside(spool: Spool, status: int) -> None:
    bad, new = samples.trace(), samples.trace()
    kept(spool, bad)
    hand_in(spool, [new], problem(status, "not this"), told(new))
    assert not spool.waiting()
    assert "not this" in spool.refused()[0].read_text()


@pytest.mark.parametrize("status", [400, 409, 413])
def test_one_that_spoils_its_batch_is_set_aside_alone(spool: Spool, status: int) -> None:
    a, b, c = (samples.trace() for _ in range(3))
    hand_in(spool, [a, b, c], AWAY)
    no = problem(status, "not this")
    assert run(spool.delivering(Talk(URL, 0.1)), no, told(a), no, no, told(c))[0] == 0
    (path,) = spool.refused()
    (entry,) = json.loads(path.read_bytes())["refused"]
    assert json.loads(entry["item"])["id"] == b.id
    assert not spool.waiting()


def test_a_trace_at_which_the_service_fails_waits_and_holds_up_nothing(spool: Spool) -> None:
    a, b, later = (samples.trace() for _ in range(3))
    hand_in(spool, [a, b], AWAY)
    kept(spool, later)
    failed = problem(500)
    assert run(spool.delivering(Talk(URL, 0.1)), failed, failed, told(b), told(later))[0] == 1
    (path,) = spool.waiting()
    assert json.loads(path.read_bytes())["id"] == a.id


def test_a_service_that_fails_at_everything_is_left_alone(spool: Spool) -> None:
    hand_in(spool, [samples.trace() for _ in range(64)], AWAY)
    with pytest.raises(ServiceUnavailable):
        run(spool.delivering(Talk(URL, 0.1)), *[problem(500)] * (2 * FAILURES_IN_A_ROW + 5))
    assert (spool.count(), spool.refused()) == (64, [])


def test_what_cannot_be_judged_now_waits_on_without_holding_up_others(spool: Spool) -> None:
    stale, good, new = (samples.trace() for _ in range(3))
    kept(spool, stale, good)
    hand_in(spool, [new], told(stale, outcome="undecided"), told(good), told(new))
    assert spool.count() == 1
    assert run(spool.delivering(Talk(URL, 0.1)), told(stale, outcome="undecided"))[0] == 1
    assert run(spool.delivering(Talk(URL, 0.1)), told(stale))[0] == 0
    assert not spool.waiting()


def test_what_cannot_be_judged_now_is_not_sent_with_every_batch(spool: Spool) -> None:
    stale, first, second = (samples.trace() for _ in range(3))
    kept(spool, stale)
    hand_in(spool, [first], told(stale, outcome="undecided"), told(first))
    _, asked = hand_in(spool, [second], told(second))
    assert (asked, spool.count()) == ([[second.id]], 1)


def test_parts_of_one_batch_have_fates_of_their_own(spool: Spool) -> None:
    traces = [samples.trace() for _ in range(3)]
    b = traces[1]
    hand_in(spool, traces, AWAY)
    outcomes = zip(traces, ("stored", "undecided", "conflict"), strict=True)
    answers = [json.loads(told(trace, outcome=outcome).body)["results"][0] for trace, outcome in outcomes]
    left, _, _ = run(spool.delivering(Talk(URL, 0.1)), answered({"results": answers}))
    (path,) = spool.waiting()
    assert (left, json.loads(path.read_bytes())["id"]) == (1, b.id)
    left, _, _ = run(spool.delivering(Talk(URL, 0.1)), told(b, outcome="refused"))
    assert (left, len(spool.refused())) == (0, 2)  # the second part took not the place of the first


def test_a_service_that_goes_in_the_midst_loses_nothing(spool: Spool) -> None:
    a, b, c = (samples.trace() for _ in range(3))
    kept(spool, a, b)
    hand_in(spool, [c], told(a), AWAY)
    ids = [json.loads(line)["id"] for path in spool.waiting() for line in path.read_bytes().splitlines()]
    assert ids == [b.id, c.id]


def test_a_wrong_token_keeps_what_waits_and_is_told(spool: Spool) -> None:
    kept(spool, samples.trace())
    with pytest.raises(Exception, match="token"):
        hand_in(spool, [samples.trace()], problem(401))
    assert spool.count() == 1


def test_a_full_spool_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    spool = Spool(tmp_path, URL, max_bytes=5_000)
    kept(spool, samples.trace())
    with pytest.raises(SpoolFull, match="5000 bytes"):
        hand_in(spool, [samples.trace() for _ in range(5)], AWAY)
    assert spool.count() == 1


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolBroken):
        hand_in(Spool(tmp_path / "file", URL), [samples.trace()], AWAY)


def test_each_service_has_a_spool_of_its_own(tmp_path: Path) -> None:
    first, second = Spool(tmp_path, URL), Spool(tmp_path, f"{URL}/other")
    kept(first, samples.trace())
    assert (first.count(), second.count()) == (1, 0)


def test_a_file_that_was_not_finished_is_not_delivered(spool: Spool) -> None:
    kept(spool, samples.trace())
    (spool.folder / ".new-000000000002.ndjson").write_bytes(b'{"id":')
    assert spool.count() == 1
    kept(spool, samples.trace())
    assert spool.count() == 2


def test_many_may_keep_at_once(tmp_path: Path) -> None:
    def keep(number: int) -> None:
        Spool(tmp_path, URL).keep([b"%d" % number])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(keep, range(50)))
    spool = Spool(tmp_path, URL)
    assert sorted(int(path.read_bytes()) for path in spool.waiting()) == list(range(50))
    assert [int(path.stem) for path in spool.waiting()] == list(range(1, 51))


def test_one_process_delivers_at_a_time(spool: Spool) -> None:
    trace = samples.trace()
    kept(spool, trace)
    first = spool.delivering(Talk(URL, 0.0))
    next(first)  # it asks
    with pytest.raises(ServiceUnavailable, match="another process"):
        run(spool.delivering(Talk(URL, 0.0)))
    first.close()
    assert run(spool.delivering(Talk(URL, 0.1)), told(trace))[0] == 0


def test_what_nobody_can_take_is_neither_sent_nor_kept(spool: Spool) -> None:
    (answer,), asked = hand_in(spool, [samples.unsigned()])
    assert (answer.outcome, asked, spool.count()) == (Outcome.REFUSED, [], 0)
