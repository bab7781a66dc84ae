"""Are refusals of the port of devices written down, and can nobody fill the log with them?"""

from pathlib import Path

import sqlalchemy as sa

from godwit.server.device_port.refusals import KINDS_MAX, SILENCE_S, Refusals
from godwit.server.storage.database import Database
from godwit.server.storage.engine import open_engine
from godwit.server.storage.tables import audit


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_each_kind_from_each_address_at_once_and_then_how_often(tmp_path: Path) -> None:
    database, clock = Database(open_engine("", tmp_path)), Clock()
    refusals = Refusals(database, clock)

    def lines() -> list[dict[str, object]]:
        with database.read() as connection:
            found = sa.select(audit.c.after).where(audit.c.what == "device-port.refuse").order_by(audit.c.id)
            return list(connection.execute(found).scalars())

    for _ in range(10):
        refusals.refused("certificate-revoked", "no", "192.0.2.1")
    refusals.refused("certificate-revoked", "no", "192.0.2.2")
    refusals.refused("certificate-expired", "no", "192.0.2.1")
    refusals.flush()
    assert len(lines()) == 3
    clock.now += SILENCE_S
    refusals.flush()
    assert lines()[3:] == [{"code": "certificate-revoked", "detail": "no", "times": 9}]
    clock.now += 2 * SILENCE_S
    refusals.flush()
    for number in range(KINDS_MAX + 100):
        refusals.refused("certificate-revoked", "no", f"198.51.{number // 256}.{number % 256}")
    assert len(lines()) == 4 + KINDS_MAX
    clock.now += SILENCE_S
    refusals.flush()
    assert [each["times"] for each in lines()[4 + KINDS_MAX :]] == [100]
