"""Are refusals of the port of devices written down, and can nobody fill the log with them?"""

from pathlib import Path

import pytest
import sqlalchemy as sa

from godwit.server.accounts.refusal_tally import EVERY_S, OF_ONE_MAX
from godwit.server.accounts.refusals import Refusals as Notes
from godwit.server.device_port.refusals import Refusals
from godwit.server.storage.database import Database
from godwit.server.storage.engine import open_engine
from godwit.server.storage.tables import audit


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_each_kind_from_each_address_once_in_a_while(tmp_path: Path) -> None:
    database, clock = Database(open_engine("", tmp_path)), Clock()
    notes = Notes(database, clock)
    refusals = Refusals(notes)

    def lines() -> list[tuple[str, object, str]]:
        with database.read() as connection:
            columns = sa.select(audit.c.about, audit.c.after, audit.c.address)
            found = connection.execute(columns.where(audit.c.what == "device-port.refuse").order_by(audit.c.id))
            return [(row.about, row.after, row.address) for row in found]

    for _ in range(10):
        refusals.refused("certificate-revoked", "no", "192.0.2.1")
    refusals.refused("certificate-revoked", "no", "192.0.2.2")
    refusals.refused("certificate-expired", "no", "192.0.2.1")
    assert len(lines()) == 3
    assert lines()[0] == ("certificate-revoked", {"code": "certificate-revoked", "detail": "no"}, "192.0.2.1")
    clock.now += EVERY_S
    notes.tell_more()
    assert lines()[3:] == [("9 more like this", {"more": 9, "codes": {"certificate-revoked": 9}}, "192.0.2.1")]
    refusals.refused("certificate-revoked", "no", "192.0.2.1")
    assert len(lines()) == 5
    for number in range(100):
        refusals.refused("certificate-revoked", "no", "198.51.100.7", f"device{number}")
    assert len(lines()) == 5 + OF_ONE_MAX


def test_what_cannot_be_written_stands_in_nobodys_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A full disk or a database that is away is told in the log; whoever was refused has his answer."""
    database = Database(open_engine("", tmp_path))
    refusals = Refusals(Notes(database))
    with database.write() as connection:
        connection.execute(sa.text("ALTER TABLE audit RENAME TO away"))
    refusals.refused("certificate-revoked", "no", "192.0.2.1")
    assert "could not be written" in caplog.text


def test_what_somebody_says_of_himself_turns_no_line_over(tmp_path: Path) -> None:
    database = Database(open_engine("", tmp_path))
    Refusals(Notes(database)).refused("unauthorized", "no", "192.0.2.1", "pump\x00\n7" + "x" * 60_000)
    with database.read() as connection:
        (about,) = connection.execute(sa.select(audit.c.about)).scalars()
    assert about.startswith("'pump\\x00\\n7xxx")
    assert len(about) == 256
