"""Accounts on a database in a temporary directory, with passwords that cost little."""

from pathlib import Path

import pytest
from argon2 import PasswordHasher

from godwit.server.accounts.passwords import Passwords
from godwit.server.accounts.room import Accounts
from godwit.server.storage.database import Database
from godwit.server.storage.engine import open_engine

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(open_engine("", tmp_path))


@pytest.fixture
def accounts(database: Database, tmp_path: Path) -> Accounts:
    return Accounts(database, tmp_path, passwords=Passwords(CHEAP))
