"""What a device is told is stored: what a committed group said, and no more."""

import json

from godwit.contract.topics import topics_for
from godwit.server.ingest.directory import Directory
from godwit.server.ingest.stored import EVERY_NS, StoredNotices


def make():
    directory = Directory()
    entry = directory.register("a", 0)
    told = []
    notices = StoredNotices(directory, topics_for("native"))

    def send(topic, payload):
        told.append((topic, json.loads(payload)["seq"]))
        return True

    notices.send = send
    return directory.track(entry, "s", "e"), entry, notices, told


def take(track, first, count):
    track.take(first, count)
    track.received += 1


def test_what_arrives_during_a_commit_is_not_told_with_it():
    track, entry, notices, told = make()
    take(track, 0, 3)
    notices.note(entry)
    notices.seal()
    take(track, 3, 5)  # belongs to the next group
    notices.note(entry)
    notices.committed(EVERY_NS)
    assert told == [("devices/a/telemetry/stored", 2)]
    notices.seal()
    notices.committed(3 * EVERY_NS)
    assert told[1:] == [("devices/a/telemetry/stored", 7)]


def test_the_last_word_is_said_although_nothing_follows():
    track, entry, notices, told = make()
    for count in range(2):
        take(track, count, 1)
        notices.note(entry)
        notices.seal()
        notices.committed(EVERY_NS + count)
    assert [seq for _, seq in told] == [0]
    notices.flush(3 * EVERY_NS)
    assert [seq for _, seq in told] == [0, 1]
    notices.flush(6 * EVERY_NS)
    assert len(told) == 2


def test_what_could_not_be_said_is_said_later():
    track, entry, notices, told = make()
    is_there = notices.send
    notices.send = lambda _topic, _payload: False
    take(track, 0, 4)
    notices.note(entry)
    notices.seal()
    notices.committed(EVERY_NS)
    notices.send = is_there
    notices.flush(3 * EVERY_NS)
    assert told == [("devices/a/telemetry/stored", 3)]


def test_other_epochs_are_told_when_the_device_comes_not_with_every_group():
    track, entry, notices, told = make()
    directory = notices._directory
    take(directory.track(entry, "s", "old"), 0, 9)
    take(track, 0, 1)
    for now, is_all in ((1, True), (3, False), (5, False)):
        notices.note(entry, is_all=is_all)
        notices.seal()
        notices.committed(now * EVERY_NS)
        take(track, now, 2)
    assert [seq for _, seq in told] == [0, 8, 2, 4]


def test_of_clones_neither_believes_the_numbers_of_the_other():
    track, entry, notices, told = make()
    take(track, 0, 100)
    fork = notices._directory.derive(entry, track)
    fork.begin(40)
    take(fork, 40, 5)
    for now in (1, 3):
        notices.note(entry)
        notices.seal()
        notices.committed(now * EVERY_NS)
        take(fork, 45, 100)
    assert [seq for _, seq in told] == [44, 99]
