"""Does the registry keep the same promises on a real PostgreSQL?"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from ports import free_port

from godwit.server.registry.service import Registry
from godwit.server.settings import load
from godwit.server.storage.database import Database
from godwit.server.storage.engine import open_engine
from godwit.server.storage.tables import metadata

sys.path.insert(0, str(Path(__file__).parents[1] / "registry"))
from suite import RegistrySuite

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def database_url() -> Iterator[str]:
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
    control = [*as_user, programs / "pg_ctl", "-D", data, "-w", "-l", directory / "log"]
    subprocess.run([*control, "-o", options, "start"], check=True, cwd="/", stdout=subprocess.DEVNULL)
    yield f"postgres://godwit@127.0.0.1:{port}/postgres"
    subprocess.run([*control, "-m", "immediate", "stop"], check=True, cwd="/", stdout=subprocess.DEVNULL)
    shutil.rmtree(directory)


@pytest.fixture
def registry(database_url: str, tmp_path: Path) -> Iterator[Registry]:
    settings = load({"DATABASE_URL": database_url}, None, {}).settings
    engine = open_engine(settings.database_url, tmp_path)
    yield Registry(Database(engine))
    with engine.begin() as connection:
        metadata.drop_all(connection)
        connection.execute(sa.text("DROP TABLE alembic_version"))
    engine.dispose()


class TestPostgres(RegistrySuite):
    """The suite on PostgreSQL."""
