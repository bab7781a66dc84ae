"""Which sealed files are to be merged: many small ones make queries slow, large ones make erasing and retention coarse.

Files of one tenant, type and day are merged by eight of about one size (so a row is rewritten a few times only), and
whatever is left of a day once it is over. Late files are merged without regard to days. Pure.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from godwit.server.telemetry.manifest import SealedFile

DAY_NS: Final = 86_400 * 1_000_000_000
AT_ONCE: Final = 8
ROWS_MAX: Final = 16_000_000
"""No merged file is larger."""
_TIERS: Final = tuple(1_000 * AT_ONCE**power for power in range(8))


def due(files: Sequence[SealedFile], now: int) -> list[list[SealedFile]]:
    """Return groups of files that are to become one each."""
    groups: defaultdict[tuple[str, str, bool, int], list[SealedFile]] = defaultdict(list)
    for each in files:
        day = -1 if each.is_late else each.time_min // DAY_NS
        groups[each.tenant, each.device_type, each.is_late, day].append(each)
    chosen = []
    for (_tenant, _type, is_late, day), members in groups.items():
        # an hour of grace, for what was measured before midnight
        is_over = not is_late and (day + 1) * DAY_NS + 3_600 * 1_000_000_000 < now
        if is_over:
            chosen += _bounded(sorted(members, key=_by_time), 2)
        else:
            tiers: defaultdict[int, list[SealedFile]] = defaultdict(list)
            for each in sorted(members, key=_by_time):
                tiers[sum(each.rows >= limit for limit in _TIERS)].append(each)
            for tier in tiers.values():
                chosen += _bounded(tier, AT_ONCE)
    return chosen


def _by_time(file: SealedFile) -> tuple[int, str]:
    return file.time_min, file.name


def _bounded(files: list[SealedFile], count_min: int) -> list[list[SealedFile]]:
    """Cut `files` into runs of at most ROWS_MAX rows; those of fewer than `count_min` files stay as they are."""
    runs: list[list[SealedFile]] = []
    rows = 0
    for each in files:
        if not runs or rows + each.rows > ROWS_MAX:
            runs.append([])
            rows = 0
        runs[-1].append(each)
        rows += each.rows
    return [run for run in runs if len(run) >= count_min]
