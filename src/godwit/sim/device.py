"""A simulated device without its network: what it says, and when asked. Pure and seeded.

It speaks the native shape of the contract: every message carries stream, epoch and the number of its first sample, so
that what is sent again is stored once.
"""

import hashlib
import math
from collections.abc import Iterable
from random import Random
from typing import Final, NamedTuple

import msgspec

from godwit.contract.ids import DeviceId
from godwit.sim.curves import DAY_S, Course, moment
from godwit.sim.profiles import PLACES, PROFILES, Place, Profile

SCHEMA_VERSION: Final = 1
STREAM: Final = "main"
FIRMWARES: Final = ("1.4.2", "1.4.2", "1.5.0")
NS: Final = 1_000_000_000


class Sample(NamedTuple):
    """Readings at one instant, ns UTC: name -> (value, unit)."""

    time: int
    readings: dict[str, tuple[float, str]]


def epoch_of(*parts: object) -> str:
    """Return the epoch of a seeded spool: the same parts give the same one, so that a repeated run adds nothing."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def encode(device_id: str, epoch: str, seq: int, samples: Iterable[Sample], **more: object) -> bytes:
    """Return one native telemetry message with `samples`, the first of which has number `seq`."""
    document: dict[str, object] = {
        "deviceId": device_id,
        "schemaVersion": SCHEMA_VERSION,
        "stream": STREAM,
        "epoch": epoch,
        "seq": seq,
        "samples": [
            {
                # an integer of this magnitude is nanoseconds (design, section 3): nothing is lost to a text form
                "timestamp": sample.time,
                "readings": {
                    name: {"value": value, "unit": unit} if unit else {"value": value}
                    for name, (value, unit) in sample.readings.items()
                },
            }
            for sample in samples
        ],
    }
    return msgspec.json.encode(document | more)


def status(device_id: str, state: str, **more: object) -> bytes:
    """Return a status message: `online` or `offline`."""
    return msgspec.json.encode({"deviceId": device_id, "status": state, **more})


class SimulatedDevice:
    """One device of a fleet: number `index` of those made from `seed`."""

    def __init__(self, index: int, profile: Profile, seed: int, started: int) -> None:
        random = Random(f"{seed}/{index}")
        self.device_id = DeviceId(f"{profile.name}-{index + 1}")
        self.profile = profile
        self.place = _place(index, random)
        self.epoch = epoch_of("fleet", seed, index, started)
        self.phase = random.random()
        """Where in the interval it sends: a fleet does not speak in unison."""
        self._course = Course(profile.curves, random)
        self._units = {curve.name: curve.unit for curve in profile.curves}
        self._battery_from_s = random.random() * profile.battery_days * DAY_S
        self._firmware = random.choice(FIRMWARES)
        self._random = random
        self._started = started
        self._seq = 0

    def telemetry(self, now: int) -> bytes:
        """Return the message for `now` (ns UTC)."""
        time_s = now / NS
        values = self._course.sample(moment(time_s, self.place.latitude, self.place.longitude))
        readings = {name: (value, self._units[name]) for name, value in values.items()}
        metadata: dict[str, object] = {
            "firmwareVersion": self._firmware,
            "signalStrength": round(self._random.gauss(-67, 3)),
            "uptime": (now - self._started) // NS,
        }
        if self.profile.battery_days:
            metadata["batteryLevel"] = battery = self._battery(time_s)
            readings["battery"] = (battery, "%")
        seq, self._seq = self._seq, self._seq + 1
        where = {
            "latitude": self.place.latitude, "longitude": self.place.longitude, "altitude": self.place.altitude,
        }  # fmt: skip
        sample = Sample(now, readings)
        return encode(self.device_id, self.epoch, seq, (sample,), sentAt=now, location=where, metadata=metadata)

    def _battery(self, time_s: float) -> float:
        """Return the charge in %: it falls, gently at first, and the battery is changed when it is empty."""
        used = (time_s + self._battery_from_s) / DAY_S % self.profile.battery_days / self.profile.battery_days
        return round(100.0 - 96.0 * math.pow(used, 1.3), 1)

    def online(self, now: int) -> bytes:
        """Return the status sent after connecting."""
        health = {
            "cpu": round(self._random.uniform(4, 22), 1),
            "memory": round(self._random.uniform(28, 46), 1),
            "disk": round(self._random.uniform(12, 30), 1),
            "uptime": (now - self._started) // NS,
        }
        return status(self.device_id, "online", health=health)

    def offline(self) -> bytes:
        """Return the status left as the last will."""
        return status(self.device_id, "offline")


def _place(index: int, random: Random) -> Place:
    home = PLACES[index % len(PLACES)]
    if index < len(PLACES):
        return home
    return home._replace(
        latitude=round(home.latitude + random.gauss(0, 0.35), 5),
        longitude=round(home.longitude + random.gauss(0, 0.45), 5),
        altitude=round(abs(random.gauss(home.altitude, 30)), 0),
    )


def make_fleet(count: int, profile: str, seed: int, started: int) -> list[SimulatedDevice]:
    """Return `count` devices of `profile`, or of all profiles in turn when it is `mixed`."""
    kinds = list(PROFILES.values()) if profile == "mixed" else [PROFILES[profile]]
    return [SimulatedDevice(index, kinds[index % len(kinds)], seed, started) for index in range(count)]
