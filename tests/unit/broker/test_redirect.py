"""Server redirect, and where a client may have its responses sent."""

import pytest

from godwit.contract.errors import RejectedError
from godwit.mqtt import packets as p
from godwit.server.broker.redirect import Redirect, redirect_to


@pytest.mark.parametrize(("is_permanent", "code"), [(False, 0x9C), (True, 0x9D)])
def test_while_a_redirect_is_in_force_who_connects_is_told_where_to_go(world, is_permanent, code):
    stays = world.connect("stays")
    world.broker.redirect = Redirect("other.example:8883", is_permanent)
    new, old = world.connect("new"), world.connect("old", version=4)
    assert (new.connack.reason_code, new.connack.server_reference) == (code, "other.example:8883")
    assert new.connack.reason_string.endswith("use other.example:8883")
    assert old.connack.reason_code == 3
    assert new.client.closed is not None
    assert stays.client.closed is None  # who is there stays, until an operator says otherwise
    assert world.connect("$bridge", listener="inside").connack.reason_code == 0
    world.broker.redirect = None
    assert world.connect("new").connack.reason_code == 0


def test_strangers_do_not_learn_the_reference(world):
    world.broker.redirect = Redirect("inner.example:8883")
    refused = world.connect("who", listener="tls").connack
    assert (refused.reason_code, refused.server_reference) == (0x87, None)


@pytest.mark.parametrize("reference", ["", " ", "a\nb", "x" * 1_025])
def test_a_reference_that_clients_could_not_read_is_refused(reference):
    with pytest.raises(RejectedError) as refused:
        redirect_to(reference, is_permanent=False)
    assert refused.value.code == "invalid-server-reference"


def test_who_asks_is_told_where_its_responses_may_go(world):
    asks = {"request_response_information": True}
    assert world.connect("rr-1", **asks).connack.response_information == "responses/rr-1/"
    assert world.connect("a/+#", **asks).connack.response_information == "responses/a%2F%2B%23/"
    assert world.connect("rr-2").connack.response_information is None
    assigned = world.connect("", **asks).connack
    assert assigned.response_information == f"responses/{assigned.assigned_client_id}/"


def test_a_request_is_answered_on_the_topic_that_the_server_named(world):
    asks, answers = world.connect("asks", request_response_information=True), world.connect("answers")
    topic = asks.connack.response_information + "1"
    asks.subscribe(topic, 1)
    answers.subscribe("service", 1)
    asks.publish("service", "?", 1, properties=p.PublishProperties(response_topic=topic, correlation_data=b"7"))
    (request,) = (each for each in answers.get() if isinstance(each, p.Publish))
    said = p.PublishProperties(correlation_data=request.properties.correlation_data)
    answers.publish(request.properties.response_topic, "!", 1, properties=said)
    (response,) = (each for each in asks.get() if isinstance(each, p.Publish))
    assert (response.payload, response.properties.correlation_data) == (b"!", b"7")
