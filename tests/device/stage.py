"""A platform and a device, for tests of how devices get in."""

import asyncio
import datetime as dt
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import cbor2
from authorities import DAY, NS, Authority
from small_platform import SmallPlatform

from godwit.contract.enrollment import EnrollmentGrant, EnrollmentRequest
from godwit.contract.ids import DeviceId
from godwit.contract.notices import RenewalWanted, encode_renewal_wanted
from godwit.device import Device
from godwit.device.identity_file import fingerprint

DEVICE = DeviceId("press-7")
NOTICES = "devices/press-7/notices"
RENEW = encode_renewal_wanted(RenewalWanted("operator"))
TIMEOUT_S = 60


class Stage:
    """A platform, and a device whose waits are short."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority(begins=now() - DAY)
        self.lifetime = 90 * DAY
        self.platform = SmallPlatform(directory, self.authority, self.grant)
        self.platform.serves = self.served(self.authority)

    @staticmethod
    def served(authority: Authority, ends: dt.datetime | None = None) -> tuple[str, str]:
        chain, key = authority.server(now() - DAY, ends or now() + DAY)
        return chain + authority.root, key

    def grant(self, asked: EnrollmentRequest) -> EnrollmentGrant:
        certificate = self.authority.issue(asked.request, begins=now() - DAY, ends=now() + self.lifetime)
        return EnrollmentGrant(
            asked.device_id, certificate, [self.authority.issuing], [self.authority.root],
            time=int(now().timestamp()) * NS,
        )  # fmt: skip

    def device(self, **more: Any) -> Device:
        given = {
            "claim": "claim-1",
            "identity": self.directory / "identity",
            "ca_fingerprint": fingerprint(self.authority.root),
            "spool": self.directory / "spool",
            "chance": lambda: 0.0,
        }
        return Device(DEVICE, "127.0.0.1", self.platform.port, **(given | more))

    @property
    def sent(self) -> list[int]:
        """The numbers that arrived, in order, without those that came twice."""
        read = (cbor2.loads(each) for each in self.platform.payloads if each[:1] != b"{")
        return list(dict.fromkeys(sample["readings"]["n"] for each in read for sample in each.get("samples", ())))

    @property
    def certificates(self) -> list[str]:
        """Those with which somebody was let in, each once."""
        return list(dict.fromkeys(name for name, _ in self.platform.connects if name))


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


def staged(tmp_path: Path, play: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        stage = Stage(tmp_path)
        await stage.platform.start()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await play(stage)
        finally:
            await stage.platform.close()

    asyncio.run(whole())


async def until(look: Callable[[], object]) -> None:
    while not look():  # noqa: ASYNC110 - it looks at two sides
        await asyncio.sleep(0.005)
