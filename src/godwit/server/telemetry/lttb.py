"""Largest triangle three buckets: the few points that show a curve as it looks (Steinarsson 2013, section 4.2)."""

import numpy as np
from numpy.typing import NDArray


def largest_triangles(
    time: NDArray[np.int64], value: NDArray[np.float64], points_max: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Choose at most `points_max` points (>= 3, else all but the ends go); first and last stay. Times ascend."""
    n = len(time)
    if n <= points_max or points_max < 3:
        return (time, value) if n <= points_max else (time[[0, -1]], value[[0, -1]])
    x = (time - time[0]).astype(np.float64)
    edges = np.linspace(1, n - 1, points_max - 1).astype(np.intp)
    chosen = np.empty(points_max, np.intp)
    chosen[0], chosen[-1] = 0, n - 1
    # The mean of each bucket is what the triangle of the bucket before it leans on.
    starts = np.append(edges[:-1], n - 1)
    counts = np.diff(np.append(starts, n))
    mean_x = np.add.reduceat(x, starts) / counts
    mean_y = np.add.reduceat(value, starts) / counts
    at = 0
    for bucket in range(points_max - 2):
        low, high = edges[bucket], max(edges[bucket + 1], edges[bucket] + 1)
        area = np.abs(
            (x[at] - mean_x[bucket + 1]) * (value[low:high] - value[at])
            - (x[at] - x[low:high]) * (mean_y[bucket + 1] - value[at])
        )
        at = low + int(area.argmax())
        chosen[bucket + 1] = at
    return time[chosen], value[chosen]
