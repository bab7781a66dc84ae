"""Tables of the DuckDB store. One file, owned by one process."""

from typing import Final

import duckdb

from godwit.contract.errors import RejectedError

VERSION: Final = 1

HOT_COLUMNS: Final = (
    "series INTEGER, time BIGINT, value DOUBLE, kind UTINYINT, quality UTINYINT, seq BIGINT, track INTEGER, "
    '"offset" BIGINT, received BIGINT, "integer" BIGINT, text VARCHAR'
)

_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS meta(key VARCHAR, value BIGINT)",
    "CREATE TABLE IF NOT EXISTS devices(device INTEGER, device_id VARCHAR, tenant VARCHAR, type VARCHAR)",
    "CREATE TABLE IF NOT EXISTS series(series INTEGER, device INTEGER, name VARCHAR, unit VARCHAR)",
    "CREATE TABLE IF NOT EXISTS tracks(track INTEGER, device INTEGER, stream VARCHAR, epoch VARCHAR)",
    "CREATE TABLE IF NOT EXISTS journal(number BIGINT, delta BLOB)",
    "CREATE TABLE IF NOT EXISTS state(kind VARCHAR, key BIGINT, data BLOB)",
    "CREATE TABLE IF NOT EXISTS documents(device INTEGER, channel VARCHAR, time BIGINT, received BIGINT, payload BLOB)",
    "CREATE TABLE IF NOT EXISTS quarantine(number BIGINT, device_id VARCHAR, tenant VARCHAR, topic VARCHAR, "
    "code VARCHAR, detail VARCHAR, content_type VARCHAR, received BIGINT, payload BLOB, sample INTEGER)",
    # The manifest: only what stands here is data; other files are orphans.
    "CREATE TABLE IF NOT EXISTS files(name VARCHAR, tenant VARCHAR, type VARCHAR, is_late BOOLEAN, time_min BIGINT, "
    "time_max BIGINT, series_min INTEGER, series_max INTEGER, rows BIGINT, bytes BIGINT)",
)


def prepare(con: duckdb.DuckDBPyConnection) -> None:
    """Make what is missing. Raises RejectedError when a newer godwit wrote the file."""
    for table in _TABLES:
        con.execute(table)
    row = con.execute("SELECT max(value) FROM meta WHERE key = 'version'").fetchone()
    if row is None or row[0] is None:
        con.execute("INSERT INTO meta VALUES ('version', ?)", [VERSION])
    elif row[0] > VERSION:
        raise RejectedError(
            f"the telemetry store was written by a newer godwit (its version is {row[0]}, ours {VERSION})",
            code="store-too-new",
        )
