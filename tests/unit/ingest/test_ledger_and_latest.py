"""Do the account and the newest values survive a fold and a replay, and does the newest value win?"""

import numpy as np

from godwit.server.ingest.batch import Batch
from godwit.server.telemetry.latest import LatestValues
from godwit.server.telemetry.ledger import WIDTH, Account, Ledger


def rows(*amounts: list[int]) -> np.ndarray:
    return np.array(amounts, np.int64)


def test_repeated_devices_of_one_group_add_up() -> None:
    ledger = Ledger()
    ledger.add(np.array([3, 3, 2_000], np.int32), rows([1] * WIDTH, [1] * WIDTH, [2] * WIDTH))
    assert ledger.account(3)[Account.MESSAGES] == 2
    assert ledger.account(2_000)[Account.READINGS] == 2
    assert ledger.account(9_999_999) == [0] * WIDTH


def test_a_folded_ledger_comes_back() -> None:
    ledger, again = Ledger(), Ledger()
    ledger.add(np.array([1, 1_500], np.int32), rows([1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]))
    ledger.refuse(1, "device-mismatch")
    ledger.refuse(-1, "unknown-device", 3)
    again.restore(ledger.dump())
    assert again.account(1) == [1, 2, 3, 4, 5, 6]
    assert again.account(1_500) == [6, 5, 4, 3, 2, 1]
    assert again.refusals(1) == {"device-mismatch": 1}
    assert again.refusals(-1) == {"unknown-device": 3}
    assert ledger.dump() == []


def batch_of(*samples: tuple[int, int, object]) -> Batch:
    batch = Batch()
    for series, time, value in samples:
        batch.series.append(series)
        batch.add_value(value)  # type: ignore[arg-type]
        batch.samples.extend((time, -1, 0, time + 1, 1))
    return batch


def test_the_newest_time_wins_and_at_equal_times_the_last() -> None:
    latest = LatestValues()
    points = batch_of((5, 30, 3.0), (5, 10, 1.0), (7, 10, 1.5), (5, 30, 4.0)).points()
    assert points is not None
    latest.advance(points)
    assert latest.get(5) == (30, 4.0, 0, 31)
    assert latest.get(7) == (10, 1.5, 0, 11)
    assert latest.get(6) is None
    older = batch_of((5, 20, 9.0)).points()
    assert older is not None
    latest.advance(older)
    assert latest.get(5) == (30, 4.0, 0, 31)


def test_texts_booleans_and_large_integers_keep_their_kind() -> None:
    latest, again = LatestValues(), LatestValues()
    big = 2**63 - 1
    points = batch_of((0, 1, "on"), (1, 1, True), (2, 1, big), (3, 1, 65), (1_030, 2, "late")).points()
    assert points is not None
    assert points.integer is not None
    assert points.integer.tolist()[2:4] == [big, 65]
    latest.advance(points)
    again.restore(latest.dump())
    for each in (latest, again):
        assert [each.get(n)[1] for n in (0, 1, 2, 3, 1_030)] == ["on", True, big, 65, "late"]  # type: ignore[index]
    assert again.get(1)[1] is True  # type: ignore[index]


def test_a_sample_with_several_readings_shares_its_time() -> None:
    batch = batch_of((0, 1, 1.0))
    batch.series += [1, 2]
    batch.values += [2.0, 3.0]
    batch.samples.extend((7, 12, 4, 8, 2))
    points = batch.points()
    assert points is not None
    assert points.time.tolist() == [1, 7, 7]
    assert points.seq.tolist() == [-1, 12, 12]
    assert points.track.tolist() == [0, 4, 4]
