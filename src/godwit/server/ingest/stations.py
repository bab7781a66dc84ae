"""What a message is between the stations of the road, and what to say of it to whoever follows it."""

from typing import Any

import msgspec

from godwit.contract.cose import Opened
from godwit.contract.telemetry import Sample, Telemetry
from godwit.server.ingest.arrival import Arrival
from godwit.server.ingest.directory import Entry


class Decoded(msgspec.Struct, gc=False):
    """A message that could be read."""

    arrival: Arrival
    telemetry: Telemetry


class Admitted(msgspec.Struct, gc=False):
    """A readable message of a known device that may speak."""

    arrival: Arrival
    telemetry: Telemetry
    entry: Entry


class Fresh(msgspec.Struct, gc=False):
    """An admitted message with those of its samples that have not arrived before, and their numbers (-1: none)."""

    arrival: Arrival
    telemetry: Telemetry
    entry: Entry
    samples: list[Sample]
    numbers: range | list[int] | None
    track_no: int = 0
    tracks: list[int] | None = None
    """The track of each sample, where a message belongs to two."""


def words_of(thing: Any, rows: int) -> str:
    """Say what a station made of a message, for who follows it."""
    if isinstance(thing, Decoded):
        message = thing.telemetry
        numbered = f", stream {message.stream} from {message.seq}" if message.seq is not None else ""
        named = f", message {message.message_id}" if message.message_id is not None else ""
        gaps = f", {_counted(len(message.gaps), 'gap')}" if message.gaps else ""
        return f"{_counted(len(message.samples), 'sample')}{numbered}{named}{gaps}{_sealed(thing.arrival.sealed)}"
    if isinstance(thing, Admitted):
        bad = [f"{each.code}: {each.detail}" for each in thing.telemetry.samples if each.code]
        return f"{thing.entry.tenant}, type {thing.entry.device_type}" + "".join(f"; {each}" for each in bad[:3])
    if isinstance(thing, Fresh):
        known = len(thing.telemetry.samples) - len(thing.samples)
        return f"{len(thing.samples)} fresh, {_counted(known, 'duplicate')}"
    return _counted(rows, "row")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _sealed(opened: Opened | None) -> str:
    if opened is None:
        return ""
    signed = f", signed by {opened.signed_by[:16]}" if opened.signed_by else ""
    return signed + (f", encrypted to {opened.encrypted_to[:16]}" if opened.encrypted_to else "")
