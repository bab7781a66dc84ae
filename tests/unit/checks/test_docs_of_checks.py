"""Does docs/security.md name every check, and every one of Device Defender's?"""

import re
from pathlib import Path

from godwit.server.checks.audit import CHECKS

PAGE = (Path(__file__).parents[3] / "docs" / "security.md").read_text()


def test_every_check_is_documented_with_its_severity() -> None:
    said = dict(re.findall(r"^\| `([a-z0-9.-]+)` \| (info|low|medium|high|critical) \|", PAGE, re.MULTILINE))
    assert said == {each.code: str(each.severity) for each in CHECKS}


def test_every_check_of_device_defender_is_answered() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+_CHECK)` \| (.+) \|$", PAGE, re.MULTILINE))
    for each in CHECKS:
        for name in each.aws:
            assert f"`{each.code}`" in rows[name], (each.code, name)
    assert len(rows) == 17


def test_the_proofs_that_are_named_exist() -> None:
    root = Path(__file__).parents[3]
    for name in set(re.findall(r"`(tests/[\w/.]+)`", PAGE)):
        assert (root / name).exists(), name
