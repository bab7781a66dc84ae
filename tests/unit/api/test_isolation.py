"""Does anybody of one tenant see, reach or change anything of another's? Every route of the API is walked.

Two tenants are planted alike, each with its mark in everything it has. Then a person of tenant A asks every route of
the OpenAPI document for B's things, and for things that are not there: the two answers have to be the same, and no
byte of any answer may bear B's mark. A new route is walked by itself; one that cannot be filled fails the test.
"""

import datetime as dt
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from godwit.contract.ids import DEFAULT_TENANT, TenantId
from godwit.server.accounts.principal import Principal
from godwit.server.console.pages import overview
from godwit.server.identity.authorities import authority_certificate

V1 = "/api/v1"
A, B, FREE = "qamarkq", "qbmarkq", "qfreeqq"
"""Marks as long as each other: the length of an answer says nothing either."""
FREE_NUMBER: Final = 4_611_686_018
SECRET: Final = "zsecretz"
"""With a mark before it: in what nobody names in a request, such as values, tags and texts."""
READS: Final = ("get", "head")

IDS_TELL: Final = {
    ("post", "/api/v1/devices"): "ids are unique in the installation: one that is taken cannot be had",
    ("post", "/api/v1/devices/enroll"): "it makes the devices that are not there",
}
"""Where a taken id and a free one cannot be answered alike, and why. docs/security.md has the list, too."""
SCALARS: Final = frozenset({
    "after", "aggregate", "all", "before", "channel", "code", "cursor", "every", "expiringDays", "format", "from",
    "inGrace", "last", "lifecycle", "limit", "offset", "online", "order", "points", "severity", "sort", "state", "step",
    "to", "what",
})  # fmt: skip
"""Query parameters that name nobody's things."""


def named(mark: str) -> dict[str, Any]:
    """Return what parameters and fields of a name are filled with, of the tenant with this mark."""
    return {
        "device_id": f"{mark}-device", "deviceId": f"{mark}-device", "deviceIds": [f"{mark}-device"],
        "clientId": f"{mark}-client", "tenant": f"{mark}-tenant", "group": f"{mark}-group", "type": f"{mark}-type",
        "deviceType": f"{mark}-type", "reading": f"{mark}-reading", "readings": f"{mark}-reading",
        "about": f"{mark}-device", "user": f"{mark}-user", "who": f"{mark}-user",
        "search": f"{mark}", "tag": f"{mark}-tag:{mark}{SECRET}",
        "rule": f"{mark}-rule", "claim_id": "0" * 16, "fingerprint": "0" * 64, "authority": "e" * 64, "campaign_id": 7,
        "question": "AAAA",
    }  # fmt: skip


BY_PATH: Final = {
    "/enrollment-rules/{name}": "rule", "/users/{name}": "user", "/types/{name}": "type", "/groups/{name}": "group",
    "/tenants/{name}": "tenant", "/authorities/{fingerprint}": "authority",
}  # fmt: skip
"""What `name` means in a path."""


class World(NamedTuple):
    """The rooms with both tenants planted, and the numbers that they were given."""

    rig: Any
    admin: TestClient
    person: TestClient
    owner: TestClient
    found: dict[str, dict[str, Any]]
    """By mark: what parameters are filled with."""


def token_of(rig: Any, tenant: str) -> str:
    """Return the token of somebody who is administrator of one tenant only."""
    made: dict[str, str] = rig.__dict__.setdefault("tokens_made", {})
    if tenant not in made:
        made[tenant] = rig.accounts.tokens.create(Principal("admin"), tenant, grants={tenant: "admin"}).secret
    return made[tenant]


def client(rig: Any, token: str) -> TestClient:
    return TestClient(rig.app, headers={"Authorization": f"Bearer {token}"}, raise_server_exceptions=False)


def told(rig: Any, device: str, channel: str, document: object) -> None:
    from godwit.contract.topics import Channel  # noqa: PLC0415

    rig.loop.call(rig.ingest.submit(device, Channel(channel), json.dumps(document).encode()))


def csr_of(mark: str) -> str:
    """Return a certificate request of a device of the tenant."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{mark}-enrolled")])
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def authority_of(mark: str) -> Callable[[str], str]:
    """Return what makes certificates of an authority of the tenant: its own for its own name."""
    name, key = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, mark)]), ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)

    def sign(common_name: str) -> str:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        made = authority_certificate(subject, key.public_key(), name, key, now, dt.timedelta(days=1), depth=0)
        return made.public_bytes(serialization.Encoding.PEM).decode()

    return sign


def plant(rig: Any, admin: TestClient, mark: str) -> dict[str, Any]:
    """Make one of everything for a tenant; returns what its parameters are filled with."""
    ids, secret = named(mark), f"{mark}{SECRET}"
    device, tenant = ids["device_id"], ids["tenant"]
    of = {"tenant": tenant}

    def good(answer: Any) -> Any:
        assert answer.is_success, answer.text
        return answer

    good(admin.put(f"{V1}/tenants/{tenant}"))
    declared = {"description": secret, "readings": [{"name": ids["reading"], "unit": "Cel", "description": secret}]}
    good(admin.put(f"{V1}/types/{ids['type']}", params=of, json=declared))
    body = {
        "deviceId": device, "tenant": tenant, "deviceType": ids["type"], "name": secret, "metadata": {"note": secret},
        "tags": {f"{mark}-tag": secret}, "location": {"name": secret, "latitude": 1.25, "longitude": 2.5},
    }  # fmt: skip
    good(admin.post(f"{V1}/devices", json=body))
    good(admin.put(f"{V1}/groups/{ids['group']}", params=of, json={"description": secret}))
    good(admin.post(f"{V1}/groups/{ids['group']}/devices", params=of, json={"deviceIds": [device]}))
    told(rig, device, "telemetry", {"readings": {ids["reading"]: 1.5, f"{mark}-text": secret}})
    told(rig, device, "events", {"event": "boot", "message": secret, "severity": "info"})
    told(rig, device, "status", {"status": "online", "health": {}, "note": secret})
    told(rig, device, "telemetry", {"readings": "nonsense", "note": secret})
    user = {"name": ids["user"], "grants": {tenant: "operator"}, "display": secret, "email": f"{mark}@{secret}"}
    good(admin.post(f"{V1}/users", json=user))
    owner = Principal(ids["user"], (tenant,), "operator")
    token = rig.accounts.tokens.create(owner, secret).token
    session = rig.accounts.sessions.begin(ids["user"], address=mark)
    ids |= {"tokenId": token.token_id, "sessionId": rig.accounts.known(session).session}
    issued = good(admin.post(f"{V1}/devices/{device}/enroll", json={})).json()
    landing = {"tags": {mark: secret}, "configuration": {mark: secret}}
    good(admin.put(f"{V1}/enrollment-rules/{ids['rule']}", params=of, json={"landing": landing}))
    claim = good(admin.post(f"{V1}/claims", json={"tenant": tenant, "name": secret, "landing": landing})).json()
    good(admin.post("/enroll", json={"deviceId": f"{mark}-enrolled", "request": csr_of(mark), "claim": claim["token"]}))
    sign = authority_of(mark)
    awaited = good(admin.post(f"{V1}/authorities/trusted", json={"tenant": tenant, "certificate": sign(mark)}))
    proof = {"certificate": sign(awaited.json()["commonName"])}
    good(admin.post(f"{V1}/authorities/{awaited.json()['fingerprint']}/proof", json=proof))
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    key = good(admin.post(f"{V1}/devices/{device}/message-keys", json={"purpose": "sign", "public": pem})).json()
    login = good(admin.post(f"{V1}/devices/{device}/tokens", json={"name": secret})).json()
    signer = good(admin.post(f"{V1}/devices/{device}/keys", json={"public": pem})).json()
    kept = good(admin.get(f"{V1}/quarantine", params={"deviceId": device})).json()["items"]
    made = {"claim_id": claim["claimId"], "keyId": key["keyId"]}
    made |= {"token_id": login["tokenId"], "key_id": signer["keyId"], "campaign_id": FREE_NUMBER}
    made |= {"fingerprint": issued["fingerprint"], "authority": awaited.json()["fingerprint"]}
    return ids | made | {"number": kept[0]["number"], "numbers": [kept[0]["number"]]}


@pytest.fixture(scope="module")
def world(rig) -> World:
    admin = client(rig, rig.tokens.admin_token)
    rig.ingest.pipeline.quarantine_number = FREE_NUMBER - 1_000
    found = {mark: plant(rig, admin, mark) for mark in (A, B)}
    found[FREE] = named(FREE) | {
        "tokenId": "0123456789ab",
        "sessionId": "0123456789abcdef",
        "number": FREE_NUMBER,
        "numbers": [FREE_NUMBER],
        "fingerprint": "f" * 64,
        "keyId": "f" * 64,
        "token_id": "f" * 16,
        "key_id": "e" * 64,
        "campaign_id": FREE_NUMBER,
    }
    return World(rig, admin, *(client(rig, token_of(rig, f"{each}-tenant")) for each in (A, B)), found)


class UnfillableError(Exception):
    """The test has to be taught what a parameter means."""


def operations(world: World) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in world.rig.app.openapi()["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def queries(operation: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in operation.get("parameters", ()) if each["in"] == "query"]


def path_for(path: str, ids: dict[str, Any]) -> str:
    def value(found: re.Match[str]) -> str:
        name = found.group(1).partition(":")[0]
        if name in ("name", "fingerprint"):
            name = next((meaning for part, meaning in BY_PATH.items() if part in path), name)
        if name not in ids:
            raise UnfillableError(f"{path}: say in `named` and `plant` what {{{name}}} is of a tenant")
        return str(ids[name])

    return re.sub(r"\{([^}]+)\}", value, path)


def fillings(path: str, operation: dict[str, Any], ids: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return query strings: with what has to be there, and with each parameter that names something."""
    needed = {each["name"]: ids.get(each["name"]) for each in queries(operation) if each.get("required")}
    yield needed
    for each in queries(operation):
        if each["name"] in ids and each["name"] not in needed:
            yield needed | {each["name"]: ids[each["name"]]}
        elif each["name"] not in ids and each["name"] not in SCALARS:
            raise UnfillableError(
                f"{path}?{each['name']}=: say in `named` what it is of a tenant, or add it to SCALARS"
            )


def example(schema: dict[str, Any], document: dict[str, Any], ids: dict[str, Any], name: str = "") -> Any:
    """Return a value that a schema takes; what has a tenant's name is the tenant's."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if name in ids:
        return ids[name]
    for word in ("default", "const"):
        if word in schema:
            return schema[word]
    if "enum" in schema:
        return schema["enum"][0]
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return example(schema[word][0], document, ids, name)
    kind = schema.get("type", "object")
    if kind == "object":
        return {
            each: example(inner, document, ids, each)
            for each, inner in schema.get("properties", {}).items()
            if each in ids or each in schema.get("required", ())
        }
    if kind == "array":
        return [example(schema.get("items", {}), document, ids)] if schema.get("minItems") else []
    simple = {"string": "x" * max(1, schema.get("minLength", 1)), "integer": 1, "number": 1.0, "boolean": False}
    if kind not in simple:
        raise UnfillableError(f"a body with {name or 'something'} of the type {kind!r}")
    return simple[kind]


def bodies(path: str, operation: dict[str, Any], document: dict[str, Any], ids: dict[str, Any]) -> Iterator[Any]:
    """Return bodies: as few fields as may be with all names, and each name by itself."""
    if "requestBody" not in operation:
        yield None
        return
    content = operation["requestBody"]["content"]
    if "application/json" not in content:
        yield b"x"
        return
    whole = example(content["application/json"]["schema"], document, ids)
    if not isinstance(whole, dict):
        raise UnfillableError(f"{path}: a body that is no object")
    yield whole
    for name in [each for each in whole if each in ids]:
        yield {each: value for each, value in whole.items() if each not in ids or each == name}


class Asked(NamedTuple):
    """A request, and what came back."""

    method: str
    path: str
    params: dict[str, Any]
    body: Any
    answer: Any

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path} {self.params} {self.body}"


def ask(world: World, who: TestClient, method: str, path: str, operation: dict[str, Any], mark: str) -> list[Asked]:
    """Ask one route in all fillings with the things of a tenant."""
    ids, document = world.found[mark], world.rig.app.openapi()
    answers = []
    for params in fillings(path, operation, ids):
        for body in bodies(path, operation, document, ids):
            where = path_for(path, ids)
            how = {"content": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
            answers.append(Asked(method, where, params, body, who.request(method, where, params=params, **how)))
    return answers


def plain(asked: Asked, mark: str, numbers: dict[str, Any]) -> tuple[int, str, str]:
    """Return an answer without what was asked for, without times, and without what is random."""
    text = asked.answer.content.decode("utf-8", "replace")
    text = text.replace(mark, "*")
    for name in ("number", "tokenId", "sessionId", "fingerprint", "authority"):
        text = text.replace(str(numbers[name]), "#")
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "T", text)
    text = re.sub(r"godwit_(uptime_seconds|sample_age_seconds|station_seconds)\S* \S+", "", text)
    text = re.sub(r'("tokenId":")[0-9a-f]+|(gwt_)[\w-]+', "", text)
    text = re.sub(r'"lastUsed":(null|"T")', "", text)
    text = re.sub(r'"(ageP50S|ageP95S)":[\d.]+', "", text)
    text = re.sub(r"gwc_[\w-]{43}|[0-9a-f]{64}|[0-9a-f]{16}", "R", text)
    return asked.answer.status_code, asked.answer.headers.get("content-type", ""), text


def compare(world: World, method: str, path: str, operation: dict[str, Any]) -> list[str]:
    """Return what differs between the answers for B's things and for things that are not there."""
    wrong = []
    foreign = ask(world, world.person, method, path, operation, B)
    free = ask(world, world.person, method, path, operation, FREE)
    for one, other in zip(foreign, free, strict=True):
        if one.answer.status_code >= 500:
            wrong.append(f"{one}: {one.answer.text[:300]}")
        if (method, path) in IDS_TELL:
            continue
        told_apart = plain(one, B, world.found[B]), plain(other, FREE, world.found[FREE])
        if told_apart[0] != told_apart[1]:
            wrong.append(f"{one}: told apart: {told_apart[0]} and {told_apart[1]}"[:800])
    return wrong


def bears(asked: Asked, mark: str) -> bool:
    """Whether an answer bears a mark that was not in the question."""
    text = asked.answer.content.decode("utf-8", "replace")
    question = [*asked.path.split("/"), *map(str, asked.params.values()), *_words(asked.body)]
    for each in sorted(question, key=len, reverse=True):
        text = text.replace(each, "") if each else text
    return mark in text or f"{mark}{SECRET}" in asked.answer.text


def _words(body: Any) -> list[str]:
    if isinstance(body, dict):
        return [word for each in body.values() for word in _words(each)]
    return [word for each in body for word in _words(each)] if isinstance(body, list) else [str(body)]


def test_every_route_says_nothing_of_another_tenant(world: World) -> None:
    wrong = []
    for method, path, operation in operations(world):
        if method in READS:
            for mark in (A, B, FREE):
                asked = ask(world, world.person, method, path, operation, mark)
                wrong += [f"{each} bears the mark" for each in asked if bears(each, B)]
    assert not wrong, "\n".join(wrong)


def test_a_foreign_thing_and_one_that_is_not_there_get_the_same_answer_and_nothing_changes(world: World) -> None:
    before = everything(world, B)
    wrong = [
        line
        for method, path, operation in sorted(operations(world), key=_last_what_tells)
        for line in compare(world, method, path, operation)
    ]
    assert not wrong, "\n".join(wrong)
    assert everything(world, B) == before


def _last_what_tells(each: tuple[str, str, Any]) -> tuple[bool, bool]:
    """Order operations: first those that change nothing, last those that make what was free."""
    return each[:2] in IDS_TELL, each[0] not in READS


def everything(world: World, mark: str) -> dict[str, Any]:
    """Return all that a tenant's own people see."""
    found = {}
    for method, path, operation in operations(world):
        if method == "get" and path.startswith(V1) and path != f"{V1}/stats":
            for each in ask(world, world.owner, method, path, operation, mark):
                found[str(each)] = plain(each, mark, world.found[mark])
    return found


def test_the_marks_can_be_seen_by_who_may(world: World) -> None:
    """Else the tests above find nothing because there is nothing."""
    asked = [
        each
        for method, path, operation in operations(world)
        if method == "get"
        for each in ask(world, world.admin, method, path, operation, B)
    ]
    text = "\n".join(each.answer.text for each in asked if each.answer.is_success)
    for word in ("device", "type", "group", "tenant", "reading", "tag", "text"):
        assert f"{B}-{word}" in text, word
    assert text.count(f"{B}{SECRET}") > 10
    own = [
        each
        for method, path, operation in operations(world)
        if method == "get" and "{" in path and path.startswith(V1) and "/rollovers/" not in path
        for each in ask(world, world.person, method, path, operation, A)
    ]
    assert all(each.answer.is_success for each in own), [str(each) for each in own if not each.answer.is_success]


def test_a_person_of_a_tenant_makes_things_there_without_naming_it(world: World) -> None:
    made = world.person.post(f"{V1}/devices", json={"deviceId": "mine-1"})
    assert (made.status_code, made.json()["tenant"]) == (201, f"{A}-tenant")
    assert world.person.put(f"{V1}/types/mine", json={}).json()["tenant"] == f"{A}-tenant"
    taken = [world.person.post(f"{V1}/devices", json={"deviceId": each}) for each in ("mine-1", f"{B}-device")]
    assert [each.json()["code"] for each in taken] == ["exists", "exists"]
    said = [each.json()["detail"].replace("mine-1", "*").replace(f"{B}-device", "*") for each in taken]
    assert said[0] == said[1]  # that it is taken has to be told, whose it is has not


def test_that_a_users_name_is_taken_is_all_that_is_told_of_him(world: World) -> None:
    """Names of users are unique in the installation, as people sign in by them. Everything else is answered alike."""
    world.admin.post(f"{V1}/users", json={"name": "of-all", "grants": {"*": "admin"}}).raise_for_status()
    gone = {"name": f"{B}-gone", "grants": {f"{B}-tenant": "admin"}, "password": "a good long sentence"}
    world.admin.post(f"{V1}/users", json=gone).raise_for_status()
    world.admin.patch(f"{V1}/users/{B}-gone", json={"disabled": True}).raise_for_status()
    bound = {"name": f"{B}-bound", "grants": {f"{B}-tenant": "viewer"}, "issuer": "https://login", "subject": "7"}
    world.admin.post(f"{V1}/users", json=bound).raise_for_status()
    own = {f"{A}-tenant": "viewer"}

    def answers(**more: Any) -> tuple[int, str]:
        """Ask with these fields; without the name, its own tenant and times."""
        asked = {"grants": own} | more
        answer = world.person.post(f"{V1}/users", json=asked)
        if answer.is_success:
            world.person.delete(f"{V1}/users/{asked['name']}").raise_for_status()
        text = answer.text.replace(asked["name"], "*").replace(B, "#").replace(FREE, "#")
        return answer.status_code, re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "T", text)

    taken = {f"{A}-user", f"{B}-user", f"{B}-gone", f"{B}-bound", "of-all"}
    for more in ({}, {"password": "a good long sentence"}, {"email": "a@b.example"}, {"display": "x"}):
        told_of_taken = {answers(name=each, **more) for each in taken}
        assert [status for status, _ in told_of_taken] == [409], told_of_taken
    for one, other in (
        ({"email": f"{B}@{B}{SECRET}"}, {"email": f"{FREE}@{FREE}{SECRET}"}),
        ({"grants": {f"{B}-tenant": "viewer"}}, {"grants": {f"{FREE}-tenant": "viewer"}}),
        ({"grants": own | {f"{B}-tenant": "viewer"}}, {"grants": own | {f"{FREE}-tenant": "viewer"}}),
        ({"issuer": "https://login", "subject": "7"}, {"issuer": "https://login", "subject": "8"}),
    ):
        for name in ("free-name", f"{B}-user"):
            assert answers(name=name, **one) == answers(name=name, **other), (name, one)
    again = world.admin.post(f"{V1}/users", json=bound | {"name": "another"})
    assert (again.status_code, again.json()["code"]) == (409, "exists")
    for name in ("of-all", f"{B}-gone", f"{B}-bound"):
        world.admin.delete(f"{V1}/users/{name}").raise_for_status()


def test_live_news_are_of_the_own_devices_only(world: World) -> None:
    hello = {"token": token_of(world.rig, f"{A}-tenant")}
    for wanted in ({}, {"devices": [f"{A}-device", f"{B}-device"]}):
        with world.person.websocket_connect(f"{V1}/live") as socket:
            socket.send_text(json.dumps(hello | wanted))
            assert socket.receive_json() == {"type": "ready"}
            for mark in (B, A):
                told(world.rig, f"{mark}-device", "telemetry", {"readings": {f"{mark}-reading": 2.5}})
            news = socket.receive_json()["items"]
        assert {each["deviceId"] for each in news} == {f"{A}-device"}


def test_a_trace_is_of_an_own_device_only(world: World) -> None:
    closed = []
    for mark in (B, "nobodys"):
        with (
            world.person.websocket_connect(f"{V1}/trace?device={mark}-device") as socket,
            pytest.raises(WebSocketDisconnect) as refused,
        ):
            socket.receive_json()
        closed.append((refused.value.code, refused.value.reason.replace(mark, "*")))
    assert closed[0] == closed[1]
    with world.person.websocket_connect(f"{V1}/trace?device={A}-device") as socket:
        assert socket.receive_json() == {"type": "ready"}


def test_a_name_that_has_become_another_tenants_cannot_be_spoken_for(world: World) -> None:
    """What strangers said under a name is the default tenant's to see, but not to replay into somebody's device."""
    told(world.rig, "moved-1", "telemetry", {"readings": {"x": 1}})
    kept = world.admin.get(f"{V1}/quarantine", params={"deviceId": "moved-1"}).json()["items"][0]
    world.admin.post(f"{V1}/devices", json={"deviceId": "moved-1", "tenant": f"{B}-tenant"})
    defaults = client(world.rig, token_of(world.rig, DEFAULT_TENANT))
    assert defaults.get(f"{V1}/quarantine/{kept['number']}").status_code == 200
    assert defaults.post(f"{V1}/quarantine/{kept['number']}/replay").status_code == 404


def test_the_overview_shows_the_own_fleet_only(world: World) -> None:
    board, who = overview.Overview(world.rig.platform), Principal("a", (TenantId(f"{A}-tenant"),), "viewer")
    everybody = Principal("admin")
    shown = {
        each.name: str(overview.render_lists(board.lists(each)) | overview.render_numbers(
            world.rig.platform, board.numbers(each)
        ))
        for each in (who, everybody)
    }  # fmt: skip
    assert B in shown["admin"]
    assert A in shown["a"]
    assert B not in shown["a"]
    assert board.numbers(who).platform is None
    assert msgspec.structs.asdict(board.numbers(who).fresh)["live"] == 1
