"""Does the API tell who is connected, and disconnect whom it is told to?"""

import asyncio

import pytest

from godwit.contract.errors import UnavailableError
from godwit.mqtt import packets as p
from godwit.mqtt.client import MqttClient
from godwit.mqtt.reasons import ReasonError

V1 = "/api/v1/broker"


class Talker:
    """A client of the rig's broker, on the broker's own loop."""

    def __init__(self, rig, client_id):
        self.loop = rig.loop
        self.port = self.loop.call(self.listen(rig))
        self.client = self.loop.call(MqttClient.connect("127.0.0.1", self.port, p.Connect(client_id)))

    async def listen(self, rig):
        if not rig.server.addresses:
            return await rig.server.listen("local", "127.0.0.1", 0)
        return int(rig.server.addresses["local"].rpartition(":")[2])

    def wait_closed(self):
        async def wait():
            async with asyncio.timeout(5):
                await self.client.wait_closed()

        self.loop.call(wait())
        return self.client.why_closed

    def subscribe(self, topic_filter):
        self.loop.call(self.client.subscribe(topic_filter))

    def leave(self):
        self.loop.call(self.client.disconnect())


@pytest.fixture
def talker(rig):
    talkers = []

    def make(client_id):
        talkers.append(Talker(rig, client_id))
        rig.platform.broker.inspection.forget()
        return talkers[-1]

    yield make
    for each in talkers:
        each.leave()


def test_connections_sessions_and_subscriptions_are_listed(api, rig, talker):
    talker("a/b c").subscribe("x/#")
    rig.platform.broker.inspection.forget()
    found = api.get(f"{V1}/connections", params={"search": "a/b"}).json()
    assert found["total"] == 1
    (row,) = found["items"]
    assert (row["clientId"], row["listener"], row["version"], row["subscriptions"]) == ("a/b c", "local", "5", 1)
    assert row["since"].startswith("20")
    assert api.get(f"{V1}/sessions", params={"sort": "queued", "order": "desc"}).json()["items"][0]["connected"] is True
    subscriptions = api.get(f"{V1}/subscriptions", params={"search": "x/"}).json()["items"]
    assert [(each["topicFilter"], each["clientId"]) for each in subscriptions] == [("x/#", "a/b c")]
    assert api.get(f"{V1}/connections", params={"offset": 1}).json()["items"] == []


def test_a_client_is_disconnected_with_administrative_action(api, talker):
    victim = talker("a/b c")
    assert api.delete(f"{V1}/connections/a/b%20c").status_code == 204
    assert victim.wait_closed() == "administrative action: disconnected by an administrator"
    gone = api.delete(f"{V1}/connections/a/b%20c")
    assert (gone.status_code, gone.json()["code"]) == (404, "not-found")
    with pytest.raises(UnavailableError):
        victim.subscribe("x")


def test_one_client_is_sent_to_another_server(api, talker):
    leaves, stays = talker("a/b c"), talker("stays")
    body = {"serverReference": "mqtt2.example.com:8883"}
    assert api.post(f"{V1}/connections/a/b%20c/redirect", json=body).status_code == 204
    assert leaves.wait_closed() == "use another server: for now use mqtt2.example.com:8883"
    stays.subscribe("x")
    assert api.post(f"{V1}/connections/nobody/redirect", json=body).status_code == 404


def test_all_clients_are_sent_to_another_server_until_it_is_taken_back(api, rig, talker):
    leaving = [talker(f"leaves-{number}") for number in range(3)]
    body = {"serverReference": "mqtt2.example.com:8883", "permanent": True}
    told = api.post(f"{V1}/redirect", json=body).json()
    assert told == {**body, "disconnected": 3}
    for each in leaving:
        assert each.wait_closed() == "server moved: from now on use mqtt2.example.com:8883"
    assert api.get(f"{V1}/redirect").json() == body
    assert rig.platform.broker.stats().redirect == "mqtt2.example.com:8883"
    with pytest.raises(ReasonError, match="server moved"):
        talker("late")
    assert api.delete(f"{V1}/redirect").status_code == 204
    assert api.get(f"{V1}/redirect").json() == {"serverReference": None, "permanent": False}
    talker("late").subscribe("x")
    refused = api.post(f"{V1}/redirect", json={"serverReference": "a\nb"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid-server-reference")


@pytest.mark.parametrize("query", ["sort=nothing", "limit=0", "offset=-1", "order=up", "sreach=x"])
def test_a_wrong_query_is_refused(api, query):
    assert api.get(f"{V1}/connections?{query}").status_code in (400, 422)
