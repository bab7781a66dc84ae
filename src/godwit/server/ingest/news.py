"""What a committed group looks like to those who watch: readings, one by one. Built only while somebody listens."""

from godwit.server.ingest.batch import SAMPLE_WIDTH, Batch
from godwit.server.ingest.directory import Directory
from godwit.server.telemetry.live import LiveFeed, News, Reading
from godwit.server.telemetry.model import Kind

_QUALITIES = ("good", "uncertain", "bad")


def readings_of(batch: Batch, directory: Directory, live: LiveFeed) -> list[News]:
    """Return the readings of a batch that somebody listens to, in the order of arrival."""
    news: list[News] = []
    odd = {at: (kind, exact) for at, kind, exact in batch.kinds}
    qualities = dict(batch.qualities)
    wanted: dict[str, bool] = {}
    at = 0
    samples = batch.samples
    columns = (samples[column::SAMPLE_WIDTH] for column in (0, 3, 4))
    for time, received, count in zip(*columns, strict=True):
        for index in range(at, at + count):
            entry, name, unit = directory.series[batch.series[index]]
            device_id = entry.device_id
            if device_id not in wanted:
                wanted[device_id] = live.wants(device_id)
            if wanted[device_id]:
                value = _value(batch.values[index], odd.get(index))
                news.append(Reading(device_id, name, unit, time, value, _QUALITIES[qualities.get(index, 0)], received))
        at += count
    return news


def _value(value: float, odd: tuple[Kind, int | str | None] | None) -> float | int | bool | str:
    if odd is None:
        return value
    kind, exact = odd
    if kind is Kind.BOOLEAN:
        return bool(value)
    return int(value) if exact is None else exact
