"""What kinds of device the simulator knows, and where it puts them."""

from typing import Final, NamedTuple

from godwit.sim.curves import Curve, compressor, flat, household, seasonal, sunny, working


class Profile(NamedTuple):
    """A kind of device: its curves and how long its battery lasts (0: on mains)."""

    name: str
    curves: tuple[Curve, ...]
    battery_days: float = 0.0


PROFILES: Final = {
    profile.name: profile
    for profile in (
        Profile(
            "weather",
            (
                Curve("temperature", "Cel", 11.0, seasonal, 13.0, 1.6, 7_200, 1),
                Curve("humidity", "%RH", 68.0, flat, 0, 4.0, 5_400, 1, 8, 100, follows="temperature", slope=-1.4),
                Curve("pressure", "hPa", 1013.2, sunny, 0.8, 7.0, 86_400, 1, 960, 1050),
                Curve("windSpeed", "m/s", 4.0, sunny, 1.4, 1.8, 900, 1, 0, 45, jolt=5.0, jolts_a_day=12, jolt_s=120),
            ),
            battery_days=90.0,
        ),
        Profile(
            "machine",
            (
                Curve("load", "%", 6.0, working, 72.0, 5.0, 600, 1, 0, 100),
                Curve("temperature", "Cel", 41.0, sunny, 1.5, 0.8, 3_600, 2, follows="load", slope=0.42),
                Curve(
                    "vibration", "mm/s", 0.7, flat, 0, 0.12, 300, 3, 0.05, 40,
                    follows="load", slope=0.028, jolt=2.4, jolts_a_day=3, jolt_s=240,
                ),
                Curve("current", "A", 2.4, flat, 0, 0.3, 120, 2, 0, follows="load", slope=0.19),
            ),
        ),
        Profile(
            "energy",
            (
                Curve("power", "W", 240.0, household, 1_650.0, 90.0, 900, 0, 40, jolt=1_900, jolts_a_day=9, jolt_s=420),
                Curve("voltage", "V", 231.0, flat, 0, 1.1, 600, 1, 207, 253, follows="power", slope=-0.0012),
                Curve("frequency", "Hz", 50.0, flat, 0, 0.018, 60, 3, 49.8, 50.2),
            ),
        ),
        Profile(
            "cold-chain",
            (
                Curve(
                    "temperature", "Cel", -18.5, compressor, 1.3, 0.15, 900, 2, -30, 15,
                    jolt=4.5, jolts_a_day=14, jolt_s=700,
                ),
                Curve("humidity", "%RH", 62.0, flat, 0, 2.0, 1_800, 1, 20, 100, follows="temperature", slope=2.5),
            ),
            battery_days=180.0,
        ),
    )
}  # fmt: skip
"""By name, in the order in which a mixed fleet takes them."""


class Place(NamedTuple):
    """A named place; WGS 84 degrees, altitude in metres."""

    name: str
    latitude: float
    longitude: float
    altitude: float


PLACES: Final = (
    Place("Nome", 64.501, -165.406, 11),
    Place("Anchorage", 61.218, -149.900, 31),
    Place("Kodiak", 57.790, -152.407, 15),
    Place("Honolulu", 21.307, -157.858, 6),
    Place("Suva", -18.142, 178.442, 10),
    Place("Auckland", -36.849, 174.763, 20),
    Place("Nelson", -41.271, 173.284, 5),
    Place("Christchurch", -43.532, 172.636, 20),
    Place("Brisbane", -27.470, 153.026, 28),
    Place("Sydney", -33.869, 151.209, 19),
    Place("Melbourne", -37.814, 144.963, 31),
    Place("Hobart", -42.882, 147.327, 17),
)
"""The bar-tailed godwit's way from Alaska to Tasmania; larger fleets are scattered around these."""
