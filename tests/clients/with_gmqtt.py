"""Publish at each QoS with gmqtt, and read it back. Prints what came. Arguments: port, device, version."""

import asyncio
import json
import sys

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311

port, device, version = int(sys.argv[1]), sys.argv[2], sys.argv[3]
TOPIC = f"devices/{device}/telemetry"


async def main() -> None:
    client = gmqtt.Client(device, clean_session=True)
    found: list[int] = []
    subscribed, complete = asyncio.Event(), asyncio.Event()

    def on_message(_client, _topic, payload, _qos, _properties):
        found.append(json.loads(payload)["sensors"]["n"])
        if len(found) == 15:
            complete.set()
        return 0

    client.on_message = on_message
    client.on_subscribe = lambda *_: subscribed.set()
    async with asyncio.timeout(20):
        await client.connect("127.0.0.1", port, version={"5": MQTTv50, "311": MQTTv311}[version])
        client.subscribe(f"devices/{device}/+", qos=2)
        await subscribed.wait()
        for qos in (0, 1, 2):
            for number in range(5):
                client.publish(TOPIC, json.dumps({"sensors": {"n": 10 * qos + number}}), qos=qos)
        await complete.wait()
        await client.disconnect()
    print(json.dumps(sorted(found)))


asyncio.run(main())
