"""Removed means gone: what was overwritten or deleted does not stay in the files of the database.

SQLite overwrites it with zeros (`secure_delete`, see `engine`), but what was there before stands in the write-ahead log
until that is emptied. PostgreSQL keeps rows that are dead until a table is written anew. Neither reaches what is
elsewhere: backups, replicas, archived logs, and blocks of the disk that the file system has given up.
"""

import sqlalchemy as sa

from godwit.server.storage.database import Database


def scrub(database: Database, *tables: sa.Table) -> bool:
    """Leave nothing in the files of what was removed from some tables; False: it could not be done now.

    Call it after the commit, outside of any transaction. A reader may be in the way.
    """
    engine = database.engine
    try:
        with database.alone(), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if engine.dialect.name == "sqlite":
                busy, _, _ = connection.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)")).one()
                return not busy

            for table in tables:
                name = engine.dialect.identifier_preparer.format_table(table)
                connection.execute(sa.text(f"VACUUM (FULL) {name}"))
            return True
    except sa.exc.OperationalError:
        return False
