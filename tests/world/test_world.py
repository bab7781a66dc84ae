"""Does the store hold exactly what devices handed over, whatever befalls network, disks and processes?

Each seed is a world of its own (`godwit.sim.world`). One that fails is shrunk to the shortest story that still does:
its repr, pasted into `World(Story(...), directory).run()`, is the way to look at it.
"""

import os
from pathlib import Path

import pytest

from godwit.sim.world import Books, Fails, Happening, Story, World, invent, shrink

SEEDS = int(os.environ.get("SEEDS", "200"))
PART = 20


@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_nothing_is_lost_and_nothing_doubled(first: int, tmp_path: Path) -> None:
    fails = Fails(tmp_path)
    for seed in range(first, min(first + PART, SEEDS)):
        story = invent(seed)
        if wrong := fails(story):
            shortest = shrink(story, fails)
            pytest.fail(f"seed {seed}: {wrong}\n\nthe shortest story that fails:\n{shortest}\n{fails(shortest)}")


def live(story: Story, directory: Path) -> Books:
    directory.mkdir()
    return World(story, directory).run()


def test_a_seed_is_a_world(tmp_path: Path) -> None:
    assert live(invent(3), tmp_path / "a") == live(invent(3), tmp_path / "b")


def test_a_connectivity_loss_in_the_middle_of_a_transmission(tmp_path: Path) -> None:
    happenings = [Happening(at, "cut", "device-0", 1) for at in range(5, 60, 5)]
    books = live(
        Story(1, 1, 400, 60, 1 << 20, (*happenings, Happening(20, "partition", "device-0", 30))), tmp_path / "w"
    )
    assert books.cuts >= 5
    assert books.stored == books.sent == 400


def test_a_platform_that_dies_again_and_again(tmp_path: Path) -> None:
    kills = tuple(Happening(float(at), "kill-platform", "", 1.5) for at in range(2, 120, 4))
    books = live(Story(2, 3, 300, 120, 1 << 20, kills), tmp_path / "w")
    assert books.starts > 20
    assert books.stored == books.sent == 900


def test_a_device_that_dies_again_and_again(tmp_path: Path) -> None:
    kills = tuple(Happening(float(at), "kill-device", "device-0", 0.5) for at in range(2, 120, 3))
    books = live(Story(3, 1, 300, 120, 1 << 20, kills), tmp_path / "w")
    assert books.kills > 20
    assert books.stored == books.sent


def test_a_bad_disk_under_the_platform(tmp_path: Path) -> None:
    books = live(Story(4, 3, 300, 60, 1 << 20, (Happening(1, "bad-disk", "", 50),)), tmp_path / "w")
    assert books.faults > 20
    assert books.stored == books.sent == 900


def test_a_small_spool_and_a_long_outage_leave_a_record_of_every_loss(tmp_path: Path) -> None:
    story = Story(5, 1, 2_000, 600, 20_000, (Happening(60, "partition", "device-0", 500),))
    books = live(story, tmp_path / "w")
    assert books.given_up > 300
    assert books.sent == 2_000
    assert books.stored + books.given_up == books.sent


def test_what_fails_is_shrunk() -> None:
    story = invent(7)
    assert len(story.happenings) > 3
    needed = story.happenings[2]
    assert shrink(story, lambda each: "lost" if needed in each.happenings else "").happenings == (needed,)  # type: ignore[arg-type]


def test_a_backlog_in_large_messages(tmp_path: Path) -> None:
    story = Story(
        11, 2, 3_000, 600, 1 << 20, (Happening(5, "partition", "device-0", 500), Happening(90, "cut", "device-1", 1))
    )
    books = live(story, tmp_path / "w")
    assert books.stored == books.sent == 6_000
    assert books.commits < 4_500
