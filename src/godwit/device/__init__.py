"""The device SDK: keep readings safe, deliver them once, whatever the network does.

    async with Device("press-7", "iot.example.org") as device:
        await device.send(temperature=21.5, humidity=60)

Cores (`telemetry`, `uplink`, `reconnect`, `power`) decide and know no socket or clock; `client` waits. Needs the base
install only.
"""

from godwit.contract.compression import Compression
from godwit.contract.samples import Location, Reading
from godwit.device.client import Device
from godwit.device.streams import Sent, Stream
from godwit.spool import Bounds, Durability

__all__ = ["Bounds", "Compression", "Device", "Durability", "Location", "Reading", "Sent", "Stream"]
