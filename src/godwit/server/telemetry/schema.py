"""Tables of the DuckDB store. One file, owned by one process."""

from typing import Final

VERSION: Final = 1

HOT_COLUMNS: Final = (
    "series INTEGER, time BIGINT, value DOUBLE, kind UTINYINT, quality UTINYINT, seq BIGINT, track INTEGER, "
    '"offset" BIGINT, received BIGINT, "integer" BIGINT, text VARCHAR'
)

TABLES: Final = (
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
    "CREATE TABLE IF NOT EXISTS files(name VARCHAR, tenant VARCHAR, type VARCHAR, time_min BIGINT, time_max BIGINT, "
    "rows BIGINT, bytes BIGINT)",
)
