"""Does the registry keep its promises on SQLite, and does its schema come out the same by both ways?"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from godwit.server.registry.service import Registry
from godwit.server.storage import engine as storage
from godwit.server.storage.database import Database
from godwit.server.storage.engine import HEAD, MIGRATIONS, open_engine
from godwit.server.storage.tables import metadata

sys.path.insert(0, str(Path(__file__).parents[2] / "registry"))
from suite import RegistrySuite


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    engine = open_engine("", tmp_path)
    yield Registry(Database(engine))
    engine.dispose()


class TestSqlite(RegistrySuite):
    """The suite on SQLite."""


def schema_of(engine: sa.Engine) -> dict[str, set[str]]:
    inspector = sa.inspect(engine)
    return {name: {column["name"] for column in inspector.get_columns(name)} for name in inspector.get_table_names()}


def test_migrations_and_metadata_make_the_same_schema(tmp_path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'migrated.sqlite'}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    made = open_engine("", tmp_path)
    assert schema_of(engine) == schema_of(made)
    assert set(metadata.tables) | {"alembic_version"} == set(schema_of(made))
    storage.migrate(made)  # at head already: nothing to do
    engine.dispose()
    made.dispose()
