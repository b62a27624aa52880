"""The API of the Copernicus Traceability Service, held against its public description."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from rucio_trace_sandbox.processes import wait_until
from samples import digest, product, signer, trace
from service_kit import Running, body, new_store, serving
from unit.authority import Authority, signed_raw
from unit.authority import made as signed_by

from rucio_trace.envelope import parse_traces, to_json
from rucio_trace.statement import Content, Event

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from rucio_trace.envelope import Trace

DESCRIPTION = Path(__file__).parents[3] / "shared/interop/openapi/cdas-traceability.json"
REAL = json.loads((Path(__file__).parents[1] / "vectors/cdse/real-cdse-trace.json").read_text())[0]
TRACES = "/api/v1/traces"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
    with serving(folder, new_store(request, folder), max_body_bytes=1024**2) as running:
        yield running


@pytest.fixture(scope="module")
def client(service: Running) -> Iterator[httpx.Client]:
    with service.client(service.token(provider="cdse_csc")) as client:
        yield client


def put(client: httpx.Client, content: Any, code: int = 201) -> Any:
    if not isinstance(content, bytes):
        content = body(content) if all(not isinstance(each, dict) for each in content) else json.dumps(content)
    answer = client.put(TRACES, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == code, answer.text
    return answer.json()


def create(**fields: Any) -> Trace:
    """A CREATE of a product of its own."""
    number = create.number = getattr(create, "number", 0) + 1  # type: ignore[attr-defined]
    fields = {"hash": digest(f"cdse {number}"), "hash_algorithm": "SHA256", **fields}
    return trace(Event.CREATE, product(number, "cdse"), **fields)


def test_the_status_is_running(client: httpx.Client) -> None:
    status = client.get("/api/status").json()
    assert status["status"] == "running"
    assert status["server_version"]
    assert isinstance(status["protocol_version"], list)


def test_a_trace_comes_back_in_the_form_of_the_real_service(client: httpx.Client) -> None:
    made = create(contents=(Content("a/b", digest("member")),))
    answer = put(client, [made])
    assert (answer["success"], answer["error"]) == (1, 0)
    assert answer["traces"] == [{"success": True, "message": f"registered as {made.id}"}]
    found = client.get(f"{TRACES}/{made.id}").json()
    assert list(found) == list(REAL)
    assert list(found["product"]) == list(REAL["product"])
    assert list(found["signature"]) == list(REAL["signature"])
    assert found["product"]["inputs"] is None
    assert found["obsolescence"] is None
    assert (found["id"], found["origin"]) == (made.id, "SITE")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", found["timestamp"])
    assert client.get(f"{TRACES}/name/{made.statement.name}").json() == [found]
    assert client.get(f"{TRACES}/hash/{made.statement.hash}").json() == [found]
    by_member = f"{TRACES}/hash/{digest('member').upper()}"
    wait_until(lambda: client.get(by_member).json() == [found], "the trace by its member")
    again = put(client, [made])
    assert again["traces"] == [{"success": True, "message": f"registered before, as {made.id}"}]


def test_what_it_gives_is_what_it_takes(client: httpx.Client) -> None:
    """A trace read from one service may be brought to the next as it is."""
    made = create()
    put(client, [made])
    found = client.get(f"{TRACES}/{made.id}").json()
    restored = parse_traces(json.dumps(found).encode())[0]
    assert (restored.message, restored.signature) == (made.message, made.signature)


def test_traces_of_its_own_client_have_ids_of_their_own(client: httpx.Client) -> None:
    """Its signed text holds no id and no site, and two members may sign the same one."""
    text = json.dumps({"hash": digest("plain"), "name": "plain", "size": 10, "event": "CREATE"}, separators=(",", ":"))
    ids = set()
    for who in ("recorder", "another"):
        plain = signed_raw(text, signer(who), hash_algorithm="SHA3")
        assert put(client, [plain])["success"] == 1
    for found in client.get(f"{TRACES}/name/plain").json():
        assert (found["origin"], found["hash_algorithm"]) == ("cdse_csc", "SHA3")
        assert client.get(f"{TRACES}/{found['id']}").json() == found
        ids.add(found["id"])
    assert len(ids) == 2
    assert validated(client, "plain", digest("plain")) == (True, "GENUINE")


def test_a_refused_trace_says_why_and_costs_itself_alone(client: httpx.Client) -> None:
    good, stranger = create(), signed_by(Authority.root("Stranger").issue().signer)
    answer = put(client, [good, stranger])
    assert (answer["success"], answer["error"]) == (1, 1)
    assert [each["success"] for each in answer["traces"]] == [True, False]
    assert answer["traces"][1]["message"].startswith("refused: ")
    assert "no anchor vouches" in answer["traces"][1]["message"]


def test_only_the_four_events_are_told(client: httpx.Client) -> None:
    key = product(1, "events")
    made = [trace(Event.CREATE, key), trace(Event.VERIFY, key), trace(Event.OBSOLETE, key)]
    assert client.post("/api/v2/traces", content=body(made)).json()["stored"] == 3
    found = client.get(f"{TRACES}/name/events1").json()
    assert [each["event"] for each in found] == ["CREATE", "OBSOLETE"]
    assert found[1]["obsolescence"] == "reprocessed"
    assert client.get(f"{TRACES}/{made[1].id}").status_code == 404
    assert put(client, [made[1]], code=422)["detail"][0]["loc"] == ["body", 0, "event"]


def test_at_most_fifty_are_told_the_oldest_first(client: httpx.Client) -> None:
    key = product(1, "many")
    made = [trace(Event.COPY, key, rse=f"RSE-{number}") for number in range(60)]
    client.post("/api/v2/traces", content=body(made))
    assert [each["id"] for each in client.get(f"{TRACES}/name/many1").json()] == [each.id for each in made[:50]]
    assert len(client.get(f"{TRACES}/hash/{made[0].statement.hash}").json()) == 50


def test_of_what_is_not_there_there_is_nothing(client: httpx.Client) -> None:
    assert client.get(f"{TRACES}/name/nothing").json() == []
    assert client.get(f"{TRACES}/hash/xyz").json() == []
    assert client.get(f"{TRACES}/nothing").status_code == 404


# -------------------------------------------------------------------------------------- refusals


def test_who_may_not_register_gets_403(service: Running) -> None:
    for token in (None, "rt_wrong"):
        with service.client(token) as client:
            assert isinstance(put(client, [create()], code=403)["detail"], str)


@pytest.mark.parametrize(
    "what", ["none", "fifty-one", "two events", "twice", "no JSON", "deep", "an object", "no hash"]
)
def test_wrong_requests_are_422_in_the_form_of_its_framework(client: httpx.Client, what: str) -> None:
    made = create()
    without = to_json(create())
    del without["product"]["hash"]
    content: Any = {
        "none": [],
        "fifty-one": [create() for _ in range(51)],
        "two events": [create(), trace(Event.COPY)],
        "twice": [made, made],
        "no JSON": b"{",
        "deep": b"[" * 10_000,
        "an object": json.dumps(to_json(made)).encode(),
        "no hash": [without],
    }[what]
    answer = put(client, content, code=422)
    assert set(answer) == {"detail"}
    for fault in answer["detail"]:
        assert set(fault) == {"loc", "msg", "type"}
        assert fault["loc"][0] == "body"
        assert all(isinstance(fault[key], str) for key in ("msg", "type"))


def test_a_missing_parameter_is_422_too(client: httpx.Client) -> None:
    answer = client.get(f"{TRACES}/x/validate")
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", "filehash"]


def test_too_much_is_413(client: httpx.Client) -> None:
    put(client, b" " * 1024**2 + b"[]", code=413)


# ------------------------------------------------------------------------------------ validation


def validated(client: httpx.Client, name: str, filehash: str) -> tuple[bool, str]:
    answer = client.get(f"{TRACES}/{name}/validate", params={"filehash": filehash})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert set(found) == {"success", "message"}
    return found["success"], found["message"].partition(":")[0]


def test_files_are_validated_by_name_and_digest(client: httpx.Client) -> None:
    made, other = create(), create()
    put(client, [made, other])
    name, good = made.statement.name, made.statement.hash
    assert validated(client, name, good) == (True, "GENUINE")
    assert validated(client, name, good.upper()) == (True, "GENUINE")
    assert validated(client, name, "0" * 64) == (False, "UNDECIDED"), "perhaps right, by another algorithm"
    assert validated(client, name, other.statement.hash) == (False, "TAMPERED"), "content under another's name"
    assert validated(client, "nobody knows it", "0" * 64) == (False, "UNKNOWN")
    assert validated(client, name, "no digest") == (False, "UNDECIDED")


def test_a_digest_by_another_algorithm_of_the_same_trace_counts(client: httpx.Client) -> None:
    made = create(hashes={"BLAKE3": "a" * 64})
    put(client, [made])
    assert validated(client, made.statement.name, "a" * 64) == (True, "GENUINE")
    assert validated(client, made.statement.name, made.statement.hash) == (True, "GENUINE")


def test_what_should_not_be_used_is_no_success(client: httpx.Client) -> None:
    key = product(1, "superseded")
    put(client, [trace(Event.CREATE, key)])
    put(client, [trace(Event.OBSOLETE, key)])
    assert validated(client, "superseded1", digest("superseded1")) == (False, "OBSOLETE")


# ------------------------------------------------------------------------------- its description


# method and path: operation, statuses, parameters. As the public description has it.
FACTS = {
    ("get", "/status"): ("ping_status_get", {"200"}, set()),
    ("put", "/v1/traces"): ("put_traces_v1", {"201", "403", "413", "422"}, set()),
    ("get", "/v1/traces/{id}"): ("get_trace_by_id_v1", {"200", "404", "422"}, {("id", "path")}),
    ("get", "/v1/traces/name/{productname}"): (
        "get_trace_by_product_name_v1",
        {"200", "422"},
        {("productname", "path")},
    ),
    ("get", "/v1/traces/hash/{hash}"): ("search_hash_v1", {"200", "422"}, {("hash", "path")}),
    ("get", "/v1/traces/{productname}/validate"): (
        "validate_product",
        {"200", "422"},
        {("productname", "path"), ("filehash", "query")},
    ),
}


def facts(document: dict[str, Any], prefix: str = "") -> dict[tuple[str, str], Any]:
    return {
        (method, path): (
            operation["operationId"],
            set(operation["responses"]),
            {(p["name"], p["in"]) for p in operation.get("parameters", ()) if p["required"]},
        )
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if path.startswith(prefix)
    }


def test_it_is_the_api_that_is_described(client: httpx.Client) -> None:
    found = facts(client.get("/openapi.json").json(), "/api")
    for (method, path), (operation, statuses, parameters) in FACTS.items():
        ours = found[method, f"/api{path}"]
        assert (ours[0], ours[2]) == (operation, parameters)
        assert ours[1] >= statuses


@pytest.mark.skipif(not DESCRIPTION.exists(), reason="the description is not here")
def test_its_words_are_those_of_the_description(client: httpx.Client) -> None:
    theirs = json.loads(DESCRIPTION.read_text())
    assert facts(theirs) == FACTS
    ours = client.get("/openapi.json").json()["components"]["schemas"]
    for name, schema in theirs["components"]["schemas"].items():
        if name == "RegisterTrace":  # stands in the operation itself
            continue
        assert set(schema.get("required", ())) <= set(ours[name].get("required", ())), name
        assert set(schema.get("properties", ())) == set(ours[name].get("properties", ())), name
        assert schema.get("enum") == ours[name].get("enum"), name


@pytest.mark.skipif(not DESCRIPTION.exists(), reason="the description is not here")
def test_its_answers_are_as_described(client: httpx.Client) -> None:
    schemas = json.loads(DESCRIPTION.read_text())
    made = create()
    answers = {
        "TraceRegistrations": put(client, [made]),
        "Trace": _without_nulls(client.get(f"{TRACES}/{made.id}").json()),
        "ServerInfo": client.get("/api/status").json(),
        "TraceValidation": client.get(f"{TRACES}/x/validate", params={"filehash": "y"}).json(),
        "HTTPValidationError": put(client, b"[]", code=422),
    }
    jsonschema.validate(_without_nulls(REAL), {"$ref": "#/components/schemas/Trace", **schemas})
    for name, answer in answers.items():
        jsonschema.validate(answer, {"$ref": f"#/components/schemas/{name}", **schemas})


def _without_nulls(value: Any) -> Any:
    """The real service writes null for what is absent, which its description does not say."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value
