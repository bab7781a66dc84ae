"""Does the registry keep the same promises on a real PostgreSQL?"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from ports import free_port

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId
from godwit.server.identity.grounds import check_credential
from godwit.server.identity.model import Credential, Door
from godwit.server.identity.news import News
from godwit.server.identity.operators import Wanted
from godwit.server.identity.revocation import Revocation
from godwit.server.identity.room import Identity, open_identity
from godwit.server.registry.model import Device
from godwit.server.registry.service import Registry
from godwit.server.settings import load
from godwit.server.storage import identity_tables as t
from godwit.server.storage import liveness
from godwit.server.storage.database import Database
from godwit.server.storage.engine import open_engine
from godwit.server.storage.tables import metadata

sys.path.insert(0, str(Path(__file__).parents[1] / "registry"))
from suite import RegistrySuite
from windows import ADMIN, WindowSuite

pytestmark = pytest.mark.real


class Server(NamedTuple):
    """A running PostgreSQL."""

    url: str
    control: list[str | Path]
    options: str

    def restart(self, how: str) -> None:
        """Stop it in a mode of pg_ctl, and start it again."""
        for words in (["-m", how, "stop"], ["-o", self.options, "start"]):
            subprocess.run([*self.control, *words], check=True, cwd="/", stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of its own, which only this module knows. PostgreSQL does not run as root: its own user does it then."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    directory = Path(tempfile.mkdtemp(prefix="godwit-postgres-", dir="/tmp"))
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(directory, "postgres")
    data, port = directory / "data", free_port()
    subprocess.run(
        [*as_user, programs / "initdb", "-D", data, "-A", "trust", "-U", "godwit", "--no-sync"],
        check=True,
        cwd="/",
        stdout=subprocess.DEVNULL,
    )
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {directory} -c fsync=off"
    control: list[str | Path] = [*as_user, programs / "pg_ctl", "-D", data, "-w", "-l", directory / "log"]
    subprocess.run([*control, "-o", options, "start"], check=True, cwd="/", stdout=subprocess.DEVNULL)
    yield Server(f"postgres://godwit@127.0.0.1:{port}/postgres", control, options)
    subprocess.run([*control, "-m", "immediate", "stop"], check=True, cwd="/", stdout=subprocess.DEVNULL)
    shutil.rmtree(directory)


@pytest.fixture
def database_url(server: Server) -> str:
    return server.url


@pytest.fixture
def database(database_url: str, tmp_path: Path) -> Iterator[Database]:
    settings = load({"DATABASE_URL": database_url}, None, {}).settings
    engine = open_engine(settings.database_url, tmp_path)
    yield Database(engine)
    with engine.begin() as connection:
        metadata.drop_all(connection)
        connection.execute(sa.text("DROP TABLE alembic_version"))
    engine.dispose()


@pytest.fixture
def registry(database: Database) -> Registry:
    return Registry(database)


@pytest.fixture
def identity(database: Database, registry: Registry, tmp_path: Path) -> Identity:
    return open_identity(database, registry, tmp_path)


class TestPostgres(RegistrySuite):
    """The suite on PostgreSQL."""


class TestWindows(WindowSuite):
    """Nothing slips between a decision and the certificate, on PostgreSQL."""


def test_who_commits_first_wins_with_two_platforms_on_one_database(
    database: Database, identity: Identity, registry: Registry, eventually: Callable[..., object]
) -> None:
    """Two processes do not share the lock of one: the rows' own locks keep a revocation and a renewal apart."""
    registry.create_device(ADMIN, Device(DeviceId("pump-7")))
    issued = [identity.operators.enroll_all(ADMIN, [Wanted(Device(DeviceId("pump-7")))])[0].certificate]
    assert issued[0] is not None
    by = Credential(Door.CERTIFICATE, issued[0].fingerprint, issued[0].tenant, issued[0].device_id)
    elsewhere = Revocation(Database(database.engine), News())
    with database.write() as connection:
        check_credential(connection, by)
        revoking = threading.Thread(target=lambda: elsewhere.revoke(by.name, "keyCompromise", "admin"))
        revoking.start()
        waiting = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as looking:
            eventually(lambda: looking.execute(waiting).scalar_one() == 1)
    revoking.join()
    with database.write() as connection, pytest.raises(RejectedError) as refused:
        check_credential(connection, by)
    assert refused.value.code == "certificate-revoked"


def test_a_key_that_left_is_not_in_the_tables_files(database: Database, identity: Identity) -> None:
    root = next(each for each in identity.authorities.roots() if each.has_key)
    c = t.authorities.c
    with database.read() as connection:
        sealed = connection.execute(sa.select(c.key).where(c.fingerprint == root.fingerprint)).scalar_one()
        directory = Path(connection.execute(sa.text("SHOW data_directory")).scalar_one())

    def is_at_rest() -> bool:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("CHECKPOINT"))
        return any(sealed in each.read_bytes() for each in (directory / "base").rglob("*") if each.is_file())

    assert is_at_rest()
    identity.key_care.remove_root_key(ADMIN, root.fingerprint)
    assert not is_at_rest()


@pytest.fixture
def asked(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was asked of the server to see whether it is there."""
    asked: list[object] = []
    ping = database.engine.dialect.do_ping

    def count(connection: Any) -> bool:
        asked.append(connection)
        return ping(connection)

    monkeypatch.setattr(database.engine.dialect, "do_ping", count)
    return asked


def fill_the_pool(database: Database, registry: Registry) -> None:
    """Have several connections, all at rest."""
    for _ in range(2):  # those that are fresh are not looked at
        with database.read(), database.read(), database.read():
            registry.devices(ADMIN)


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_restart_of_the_server_costs_no_read_and_no_write(
    server: Server, database: Database, registry: Registry, how: str, asked: list[object]
) -> None:
    """All connections of the pool are dead then: the first that is taken says so, and nobody notices."""
    registry.create_device(ADMIN, Device(DeviceId("pump-7")))
    fill_the_pool(database, registry)
    assert asked == []
    server.restart(how)
    assert [each.device_id for each, _ in registry.devices(ADMIN).items] == ["pump-7"]
    fill_the_pool(database, registry)
    assert len(asked) == 1, "the others went with the first"
    server.restart(how)
    registry.create_device(ADMIN, Device(DeviceId("pump-8")))
    assert len(asked) == 2


def test_a_connection_that_the_server_ended_is_replaced_and_one_that_rested_is_asked(
    server: Server, database: Database, registry: Registry, asked: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.read() as one:
        pid = one.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
    url = load({"DATABASE_URL": server.url}, None, {}).settings.database_url
    elsewhere = sa.create_engine(url, poolclass=sa.NullPool)
    with elsewhere.connect() as other:
        assert other.execute(sa.text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid}).scalar_one()
    assert registry.devices(ADMIN).total == 0
    assert len(asked) == 1
    fill_the_pool(database, registry)
    assert len(asked) == 1
    monkeypatch.setattr(liveness, "REST_S", 0.0)
    assert registry.devices(ADMIN).total == 0
    assert len(asked) == 2
