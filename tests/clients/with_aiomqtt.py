"""Publish at each QoS with aiomqtt, and read it back. Prints what came. Arguments: port, device, version."""

import asyncio
import json
import sys

import aiomqtt

port, device, version = int(sys.argv[1]), sys.argv[2], sys.argv[3]
TOPIC = f"devices/{device}/telemetry"
PROTOCOL = {"5": aiomqtt.ProtocolVersion.V5, "311": aiomqtt.ProtocolVersion.V311}[version]


async def main() -> None:
    async with asyncio.timeout(20), aiomqtt.Client("127.0.0.1", port, identifier=device, protocol=PROTOCOL) as client:
        await client.subscribe(f"devices/{device}/+", qos=2)
        for qos in (0, 1, 2):
            for number in range(5):
                await client.publish(TOPIC, json.dumps({"sensors": {"n": 10 * qos + number}}), qos=qos)
        found = []
        async for message in client.messages:
            found.append(json.loads(message.payload)["sensors"]["n"])
            if len(found) == 15:
                break
        print(json.dumps(sorted(found)))


asyncio.run(main())
