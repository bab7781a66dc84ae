"""Are refusals of the port of devices written down, and can nobody fill the log with them?"""

from pathlib import Path

import sqlalchemy as sa

from godwit.server.device_port.refusals import PER_S_MAX, SILENCE_S, Refusals
from godwit.server.storage.database import Database
from godwit.server.storage.engine import open_engine
from godwit.server.storage.tables import audit


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_each_kind_from_each_address_once_in_a_while(tmp_path: Path) -> None:
    database, clock = Database(open_engine("", tmp_path)), Clock()
    refusals = Refusals(database, clock)

    def lines() -> int:
        with database.read() as connection:
            return connection.execute(
                sa.select(sa.func.count()).select_from(audit).where(audit.c.what == "device-port.refuse")
            ).scalar_one()

    for _ in range(10):
        refusals.refused("certificate-revoked", "no", "192.0.2.1")
    refusals.refused("certificate-revoked", "no", "192.0.2.2")
    refusals.refused("certificate-expired", "no", "192.0.2.1")
    assert lines() == 3
    clock.now += SILENCE_S
    refusals.refused("certificate-revoked", "no", "192.0.2.1")
    assert lines() == 4
    clock.now += 1
    for number in range(100):
        refusals.refused("certificate-revoked", "no", f"198.51.100.{number}")
    assert lines() == 4 + PER_S_MAX
