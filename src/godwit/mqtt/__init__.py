"""The MQTT protocol, 3.1.1 and 5: codec, sessions and topic tree without I/O, and thin asyncio shells around them."""
