"""Is what docs/security.md says of bad input true? Each code is one of ours, and in a test that is named beside it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "security.md").read_text()
TABLE = PAGE.partition("## Bad input")[2].partition("\n## ")[0]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TABLE.splitlines()
    if line.startswith("| ") and "---" not in line
][1:]
SOURCES = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
BY_WORDS = {"not-authorised"}
"""What the clients of others print in words."""


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_table_is_there() -> None:
    assert len(ROWS) > 20
    assert all(len(row) == 6 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row[0][:40] for row in ROWS])
def test_a_row_is_true(row: list[str]) -> None:
    _, _, _, codes, audited, proofs = row
    files = [ROOT / each for each in words(proofs)]
    assert files
    tests = "\n".join(path.read_text() for path in files)
    for code in words(codes):
        assert f'"{code}"' in SOURCES or "device-{" in SOURCES, code
        assert code in tests or code in BY_WORDS, code
    for line in words(audited):
        assert f'"{line}"' in SOURCES, line
    assert bool(words(codes)) == bool(words(audited))
