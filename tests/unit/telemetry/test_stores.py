"""Do all stores keep the same promise? One suite, each store; and DuckDB against memory on arbitrary data."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from godwit.contract.errors import UnavailableError
from godwit.server.telemetry.duckdb import DOCUMENTS_KEPT, DuckDBStore
from godwit.server.telemetry.memory import MemoryStore
from godwit.server.telemetry.model import (
    Commit,
    DeviceRow,
    Document,
    Points,
    Quarantined,
    Retention,
    SeriesRow,
    StateRow,
    TrackRow,
)
from godwit.server.telemetry.store import TelemetryStore

S = 1_000_000_000
T0 = 1_700_000_000 * S
ALL = ("avg", "min", "max", "sum", "count", "first", "last", "p50", "p95")


def points_of(*rows: tuple[int, int, float], quality: int = 0) -> Points:
    n = len(rows)
    return Points(
        series=np.array([row[0] for row in rows], np.int32),
        time=np.array([T0 + row[1] * S for row in rows], np.int64),
        value=np.array([row[2] for row in rows], np.float64),
        kind=np.zeros(n, np.uint8),
        quality=np.full(n, quality, np.uint8),
        seq=np.arange(n, dtype=np.int64),
        track=np.zeros(n, np.int32),
        offset=np.zeros(n, np.int64),
        received=np.array([T0 + row[1] * S for row in rows], np.int64),
    )


DEVICES = [DeviceRow(0, "a", "default", "pump"), DeviceRow(1, "b", "other", "fan")]
SERIES = [SeriesRow(0, 0, "temperature", "Cel"), SeriesRow(1, 0, "humidity"), SeriesRow(2, 1, "temperature")]


@pytest.fixture(params=["memory", "duckdb", "sealed"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TelemetryStore]:
    store = MemoryStore() if request.param == "memory" else DuckDBStore(tmp_path)
    if request.param == "sealed":
        commit = store.commit

        def commit_and_seal(what: Commit) -> None:
            commit(what)
            store.seal(T0, force=True)

        store.commit = commit_and_seal  # type: ignore[method-assign]
    yield store
    store.close()


def test_points_come_back_by_time(store: TelemetryStore) -> None:
    store.commit(Commit(1, points_of((0, 20, 2.0), (0, 10, 1.0), (2, 15, 9.0)), DEVICES, SERIES))
    store.commit(Commit(2, points_of((0, 15, 1.5), (0, 10, 1.1))))
    found = store.range([0], T0, T0 + 20 * S)
    assert found.value.tolist() == [1.1, 1.0, 1.5] or found.value.tolist() == [1.0, 1.1, 1.5]
    assert store.range([0], T0, T0 + 99 * S, newest_first=True, limit=1).value.tolist() == [2.0]
    assert len(store.range([0, 2], T0, T0 + 99 * S)) == 5
    assert len(store.range([7], T0, T0 + 99 * S)) == 0


def test_texts_and_large_integers_come_back_exactly(store: TelemetryStore) -> None:
    points = points_of((0, 1, 1.0), (0, 2, float("nan")), (1, 3, 2.0**63))
    fields = {name: getattr(points, name) for name in points.__struct_fields__}
    fields |= {
        "kind": np.array([0, 3, 1], np.uint8),
        "text": [None, "grün", None],
        "integer": np.array([0, 0, 2**63 - 1], np.int64),
    }
    store.commit(Commit(1, Points(**fields), DEVICES, SERIES))
    found = store.range([0, 1], T0, T0 + 9 * S)
    assert found.text is not None
    assert found.text[1] == "grün"
    assert found.integer is not None
    assert found.integer[2] == 2**63 - 1
    assert store.buckets([0], T0, T0 + 9 * S, S, ["count"]).columns["count"].tolist() == [1]


def test_the_devices_own_time_is_kept_beside_a_corrected_one(store: TelemetryStore) -> None:
    points = points_of((0, 1, 1.0), (0, 2, 2.0), (1, 3, 3.0))
    fields = {name: getattr(points, name) for name in points.__struct_fields__}
    fields["offset"] = np.array([0, -3_600 * S, 5 - T0], np.int64)
    store.commit(Commit(1, Points(**fields), DEVICES, SERIES))
    store.commit(Commit(2, points_of((0, 4, 4.0))))
    found = store.range([0, 1], T0, T0 + 9 * S)
    assert found.offset.tolist() == [0, -3_600 * S, 5 - T0, 0]


def test_buckets(store: TelemetryStore) -> None:
    rows = [(0, second, float(second)) for second in range(10)] + [(2, 1, 100.0)]
    store.commit(Commit(1, points_of(*rows), DEVICES, SERIES))
    store.commit(Commit(2, points_of((0, 2, 1e9), quality=2)))
    found = store.buckets([0], T0, T0 + 10 * S, 5 * S, ALL)
    assert found.time.tolist() == [T0, T0 + 5 * S]
    wanted = {"avg": 2, "min": 0, "max": 4, "sum": 10, "count": 5, "first": 0, "last": 4, "p50": 2, "p95": 3.8}
    assert {name: pytest.approx(column[0]) for name, column in found.columns.items()} == wanted
    fleet = store.fleet_buckets(None, T0, T0 + 10 * S, 10 * S, ["avg", "count"])
    assert fleet.series.tolist() == [-1]
    assert fleet.columns["count"].tolist() == [11]


def test_a_chart_keeps_ends_and_peaks(store: TelemetryStore) -> None:
    rows = [(0, second, 1000.0 if second == 500 else float(second % 7)) for second in range(2_000)]
    store.commit(Commit(1, points_of(*rows), DEVICES, SERIES))
    time, value = store.chart(0, T0, T0 + 9_999 * S, 100)
    assert len(time) == 100
    assert time[0] == T0
    assert time[-1] == T0 + 1_999 * S
    assert 1000.0 in value
    assert (np.diff(time) > 0).all()


def test_state_deltas_and_numbers_are_recovered(store: TelemetryStore) -> None:
    track = TrackRow(1, 0, "main", "e1")
    store.commit(Commit(1, None, DEVICES, SERIES, [track], delta=b"one"))
    store.commit(Commit(2, None, [DeviceRow(0, "a", "default", "valve")], delta=b"two"))
    store.fold(1, [StateRow("ledger", 0, b"x"), StateRow("track", 7, b"y")])
    store.fold(1, [StateRow("ledger", 0, b"z")])
    store.commit(Commit(2, points_of((0, 1, 1.0)), delta=b"again"))  # a retry of what got through
    recovered = store.recover()
    assert recovered.number == 2
    assert recovered.deltas == [(2, b"two")]
    assert {(row.kind, row.key): row.data for row in recovered.state} == {("ledger", 0): b"z", ("track", 7): b"y"}
    assert {row.device_no: row.device_type for row in recovered.devices} == {0: "valve", 1: "fan"}
    assert sorted(row.series_no for row in recovered.series) == [0, 1, 2]
    assert recovered.tracks == [track]
    assert len(store.range([0], T0, T0 + 9 * S)) == 0


def refused(number: int, device: str = "a", code: str = "malformed-json") -> Quarantined:
    return Quarantined(number, device, "default", "devices/a/telemetry", code, "why", "", T0 + number, b"{" * number)


def test_quarantine_is_listed_released_and_numbered_on(store: TelemetryStore) -> None:
    store.commit(Commit(1, quarantined=[refused(1), refused(2, code="not-finite"), refused(3, "b")]))
    assert [each.number for each in store.quarantine()] == [3, 2, 1]
    assert [each.number for each in store.quarantine(device_id="a", before=2)] == [1]
    assert [each.number for each in store.quarantine(code="not-finite")] == [2]
    assert store.quarantined(2) == refused(2, code="not-finite")
    store.commit(Commit(2, released=[3, 2]))
    assert [each.number for each in store.quarantine()] == [1]
    assert store.quarantined(3) is None
    assert store.recover().quarantine_number == 3


def test_documents_newest_first(store: TelemetryStore) -> None:
    said = [Document(0, "events", T0 + at, T0 + at, b"%d" % at) for at in range(12)]
    store.commit(Commit(1, None, DEVICES, documents=[*said, Document(1, "events", T0, T0, b"other")]))
    assert [each.payload for each in store.documents(0, ["events"], 2)] == [b"11", b"10"]
    assert store.documents(0, ["status"], 2) == []
    assert [each.device_no for each in store.documents(None, ["events"], 20)] == [0] * 12 + [1]


def test_erasing_a_device_leaves_nothing_of_it(store: TelemetryStore) -> None:
    both = points_of((0, 1, 1.0), (1, 1, 2.0), (2, 1, 3.0))
    said = [Document(0, "events", T0, T0, b"x")]
    tracks = [TrackRow(1, 1, "main", "e1"), TrackRow(2, 0, "main", "e2")]
    store.commit(Commit(1, both, DEVICES, SERIES, tracks, said, [refused(1), refused(2, "b")]))
    assert store.erase(0) == 2
    recovered = store.recover()  # its numbers stay taken, what it was called is gone
    assert [(row.track_no, row.epoch) for row in recovered.tracks] == [(1, "e1"), (2, "")]
    assert sorted((row.series_no, row.name) for row in recovered.series) == [(0, ""), (1, ""), (2, "temperature")]
    assert {row.device_no: row.device_id for row in recovered.devices} == {0: "", 1: "b"}
    assert len(store.range([0, 1], T0, T0 + 9 * S)) == 0
    assert store.range([2], T0, T0 + 9 * S).value.tolist() == [3.0]
    assert store.documents(0, ["events"], 9) == []
    assert [each.number for each in store.quarantine()] == [2]


def test_an_export_is_a_parquet_file(store: TelemetryStore, tmp_path: Path) -> None:
    store.commit(Commit(1, points_of((0, 2, 2.5), (0, 1, 1.5), (2, 1, 9.0)), DEVICES, SERIES))
    out = tmp_path / "out.parquet"
    assert store.export([0], T0, T0 + 9 * S, out) == 2
    found = duckdb.sql(f"SELECT device, reading, epoch_ns(time), value FROM '{out}' ORDER BY time").fetchall()
    assert found == [("a", "temperature", T0 + S, 1.5), ("a", "temperature", T0 + 2 * S, 2.5)]


def test_newest_point_of_each_series(store: TelemetryStore) -> None:
    if isinstance(store, DuckDBStore) and "commit_and_seal" in store.commit.__name__:
        pytest.skip("newest looks at rows that are not sealed")
    store.commit(Commit(1, points_of((0, 20, 2.0), (0, 10, 1.0), (2, 15, 9.0)), DEVICES, SERIES))
    found = store.newest()
    assert dict(zip(found.series.tolist(), found.value.tolist(), strict=True)) == {0: 2.0, 2: 9.0}


def test_the_last_samples_of_each_track_with_all_their_readings(store: TelemetryStore) -> None:
    if isinstance(store, DuckDBStore) and "commit_and_seal" in store.commit.__name__:
        pytest.skip("it looks at rows that are not sealed")
    rows = [(series, at, float(at)) for at in range(10) for series in (0, 1)]
    points = points_of(*rows)
    numbers = msgspec.structs.replace(points, seq=np.repeat(np.arange(10), 2), track=np.full(20, 3, np.int32))
    store.commit(Commit(1, numbers, DEVICES, SERIES))
    store.commit(Commit(2, points_of((2, 50, 1.0))))  # without a number
    found = store.last_samples(3)
    assert found.seq.tolist() == [7, 7, 8, 8, 9, 9]
    assert found.track.tolist() == [3] * 6
    assert found.value.tolist() == [7, 7, 8, 8, 9, 9]
    assert len(store.last_samples(0)) == 0


def crashed(store: TelemetryStore, tmp_path: Path) -> TelemetryStore:
    """Return what opens after the process of `store` was killed at this moment."""
    if isinstance(store, MemoryStore):
        return store.crash()
    shutil.copytree(
        tmp_path, tmp_path / "left", ignore=shutil.ignore_patterns("left")
    )  # with its log, as a kill leaves it
    return DuckDBStore(tmp_path / "left")


def test_a_crash_leaves_what_was_committed_and_no_more(store: TelemetryStore, tmp_path: Path) -> None:
    points = points_of((0, 1, 1.0), (2, 1, 2.0))
    store.commit(Commit(1, points, DEVICES, SERIES, delta=b"one", quarantined=[refused(1), refused(2)]))
    store.commit(Commit(2, released=[2], delta=b"two"))
    store.fold(1, [StateRow("ledger", 0, b"x")])
    points.value[:] = 9.0  # not committed
    left = crashed(store, tmp_path)
    recovered = left.recover()
    assert (recovered.number, recovered.deltas, recovered.quarantine_number) == (2, [(2, b"two")], 2)
    assert recovered.state == [StateRow("ledger", 0, b"x")]
    assert [each.number for each in left.quarantine()] == [1]
    assert left.range([0, 2], T0, T0 + 9 * S).value.tolist() == [1.0, 2.0]
    left.commit(Commit(3, points_of((0, 2, 3.0))))
    assert len(left.range([0], T0, T0 + 9 * S)) == 2
    left.close()


@pytest.mark.parametrize("is_durable", [False, True])
def test_a_commit_in_whose_midst_memory_crashes_is_there_if_it_was_durable(*, is_durable: bool) -> None:
    store = MemoryStore()
    store.commit(Commit(1, points_of((0, 1, 1.0)), DEVICES, SERIES))
    opened: list[MemoryStore] = []

    def crash(_commit: Commit, at: bool) -> None:
        if at == is_durable:
            opened.append(store.crash())

    store.fault = crash
    with pytest.raises(UnavailableError):
        store.commit(Commit(2, points_of((0, 2, 2.0))))
    assert opened[0].recover().number == (2 if is_durable else 1)
    assert len(opened[0].range([0], T0, T0 + 9 * S)) == (2 if is_durable else 1)
    with pytest.raises(UnavailableError):
        store.commit(Commit(3))


rows = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.floats(-1e6, 1e6)), min_size=1, max_size=60)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rows, min_size=1, max_size=3), st.integers(0, 3), st.integers(1, 20))
def test_duckdb_says_what_memory_says(tmp_path: Path, batches: list, seal_after: int, every: int) -> None:
    directory = tmp_path / str(np.random.default_rng().integers(2**62))
    real, plain = DuckDBStore(directory), MemoryStore()
    try:
        for number, batch in enumerate(batches, 1):
            commit = Commit(number, points_of(*batch), *((DEVICES, SERIES) if number == 1 else ()))
            plain.commit(commit)
            real.commit(commit)
            if number <= seal_after:
                real.seal(T0, force=True)
        for series in ([0], [0, 1, 2]):
            one, two = (each.range(series, T0 + 2 * S, T0 + 25 * S) for each in (real, plain))
            assert sorted(zip(one.series, one.time, one.value, strict=True)) == sorted(
                zip(two.series, two.time, two.value, strict=True)
            )
            names = ["avg", "min", "max", "sum", "count", "p50", "p95"]
            left, right = (each.buckets(series, T0, T0 + 31 * S, every * S, names) for each in (real, plain))
            assert left.time.tolist() == right.time.tolist()
            for name in names:
                np.testing.assert_allclose(left.columns[name], right.columns[name], rtol=1e-9, atol=1e-6)
    finally:
        real.close()


def test_a_reopened_store_holds_what_was_committed(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    store.commit(Commit(1, points_of((0, 1, 1.0)), DEVICES, SERIES, delta=b"d"))
    store.seal(T0, force=True)
    store.commit(Commit(2, points_of((0, 2, 2.0)), delta=b"e"))
    store.close()
    (tmp_path / "sealed" / "00000099-orphan-x.parquet").write_bytes(b"left by a crash")
    store = DuckDBStore(tmp_path)
    assert store.range([0], T0, T0 + 9 * S).value.tolist() == [1.0, 2.0]
    assert store.recover().number == 2
    assert len(list((tmp_path / "sealed").iterdir())) == 1
    store.commit(Commit(3, points_of((0, 3, 3.0))))
    assert len(store.range([0], T0, T0 + 9 * S)) == 3
    store.close()


def test_sealed_files_open_with_any_tool_and_retention_unlinks_them(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    store.commit(Commit(1, points_of((0, 1, 1.5), (2, 1, 2.5)), DEVICES, SERIES))
    store.seal(T0, force=True)
    files = sorted((tmp_path / "sealed").iterdir())
    assert len(files) == 2  # one a tenant and type
    found = duckdb.sql(f"SELECT device, reading, value FROM '{files[0]}'").fetchall()
    assert found == [("a", "temperature", 1.5)]
    assert store.retain(T0 + 100 * S, [Retention("default", "pump", 50)]) == 1
    assert store.retain(T0 + 100 * S, [Retention("default", "pump", 50)]) == 0
    assert sorted((tmp_path / "sealed").iterdir()) == files[1:]
    assert store.range([2], T0, T0 + 9 * S).value.tolist() == [2.5]
    out = tmp_path / "out.parquet"
    assert store.export([2], T0, T0 + 9 * S, out) == 1
    assert duckdb.sql(f"SELECT device, reading, value FROM '{out}'").fetchall() == [("b", "temperature", 2.5)]
    store.close()


def test_small_files_are_merged_and_the_old_ones_leave(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    for number in range(1, 20):
        store.commit(Commit(number, points_of((0, number, float(number))), DEVICES, SERIES))
        store.seal(T0, force=True)
    files = list((tmp_path / "sealed").iterdir())
    assert len(files) == store.stats().files < 10
    assert store.range([0], T0, T0 + 99 * S).value.tolist() == [float(number) for number in range(1, 20)]
    store.close()
    store = DuckDBStore(tmp_path)
    assert len(store.range([0], T0, T0 + 99 * S)) == 19
    store.close()


def test_late_rows_are_merged_without_regard_to_days(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    days = 86_400
    for number in range(1, 20):
        late = points_of((0, -number * 3 * days, float(number)))
        late.received[:] = T0
        store.commit(Commit(number, late, DEVICES, SERIES))
        store.seal(T0, force=True)
    assert store.stats().files < 10
    assert len(store.range([0], T0 - 99 * days * S, T0)) == 19
    store.close()


def test_erasing_while_sealing_removes_and_doubles_nothing_else(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    many = [(0, at, 1.0) for at in range(5_000)] + [(2, at, float(at)) for at in range(5_000)]
    for number in range(1, 9):
        shifted = [(series, at + number * 10_000, value) for series, at, value in many]
        store.commit(Commit(number, points_of(*shifted), DEVICES, SERIES))
    work = [lambda: store.seal(T0, force=True), lambda: store.erase(0), lambda: store.seal(T0, force=True)]
    with ThreadPoolExecutor(3) as pool:
        erased = [each.result() for each in [pool.submit(task) for task in work]][1]
    assert erased == 40_000
    assert len(store.range([0], 0, 2**62)) == 0
    assert len(store.range([2], 0, 2**62)) == 40_000
    store.close()


def test_documents_are_kept_in_bounds(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    said = [Document(0, "events", T0 + at, T0 + at, b"%d" % at) for at in range(DOCUMENTS_KEPT + 7)]
    store.commit(Commit(1, None, DEVICES, documents=[*said, Document(1, "status", T0, T0, b"other")]))
    store.retain(T0, [])
    left = store.documents(0, ["events"], 10_000)
    assert (len(left), left[-1].payload) == (DOCUMENTS_KEPT, b"7")
    assert len(store.documents(1, ["status"], 9)) == 1
    store.close()


def test_commits_stop_before_the_disk_is_full(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path, disk_free_bytes_min=2**62)
    with pytest.raises(UnavailableError) as caught:
        store.commit(Commit(1, points_of((0, 1, 1.0))))
    assert caught.value.code == "disk-full"
    assert store.recover().number == 0
    store.close()


def test_who_comes_after_the_end_does_not_open_the_file_anew(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    store.commit(Commit(1, points_of((0, 1, 1.0)), DEVICES, SERIES))
    store.close()
    with pytest.raises(UnavailableError, match="is closed"):
        store.quarantine()
    with pytest.raises(UnavailableError, match="is closed"):
        store.commit(Commit(2, points_of((0, 2, 2.0))))
    store.close()
    DuckDBStore(tmp_path).close()
