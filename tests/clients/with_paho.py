"""Publish at each QoS with paho-mqtt, and read it back. Prints what came. Arguments: port, device, version."""

import json
import sys
import threading

from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5, MQTTv311

port, device, version = int(sys.argv[1]), sys.argv[2], sys.argv[3]
found: list[int] = []
subscribed, complete = threading.Event(), threading.Event()


def on_message(_client, _data, message):
    found.append(json.loads(message.payload)["sensors"]["n"])
    if len(found) == 15:
        complete.set()


client = Client(CallbackAPIVersion.VERSION2, device, protocol={"5": MQTTv5, "311": MQTTv311}[version])
client.on_message = on_message
client.on_subscribe = lambda *_: subscribed.set()
client.connect("127.0.0.1", port)
client.loop_start()
client.subscribe(f"devices/{device}/+", 2)
assert subscribed.wait(10)
for qos in (0, 1, 2):
    for number in range(5):
        payload = json.dumps({"sensors": {"n": 10 * qos + number}})
        client.publish(f"devices/{device}/telemetry", payload, qos).wait_for_publish(10)
assert complete.wait(10)
client.disconnect()
client.loop_stop()
print(json.dumps(sorted(found)))
