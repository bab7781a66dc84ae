"""Does the house keep its own rules: pinned requirements without an address, and the direction of imports?"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
SETS = {"base": (), "edge": ("edge",), "server": ("edge", "server"), "dev": ("edge", "server", "dev")}


def pins(name: str) -> dict[str, set[str]]:
    """Return package -> versions of a requirement file."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(
        r"^([A-Za-z0-9._-]+)==(\S+)", (REPOSITORY / "requirements" / f"{name}.txt").read_text(), re.MULTILINE
    ):
        found.setdefault(normal(package), set()).add(version)
    return found


def normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


@pytest.mark.parametrize("name", SETS)
def test_everything_asked_for_is_pinned_with_hashes_and_without_an_address(name: str) -> None:
    text = (REPOSITORY / "requirements" / f"{name}.txt").read_text()
    assert not re.search(r"https?:|file:|--(extra-)?index|--find-links|^-", text, re.MULTILINE)
    for entry in re.split(r"\n(?=\S)", text.strip()):
        assert "--hash=sha256:" in entry, entry
    asked = list(PROJECT["project"]["dependencies"])
    for extra in SETS[name]:
        asked += PROJECT["project"]["optional-dependencies"][extra]
    wanted = {normal(re.split(r"[\[<>=;! ]", each)[0]) for each in asked} | {"setuptools"}
    assert wanted <= pins(name).keys()


@pytest.mark.parametrize(("smaller", "larger"), [("base", "edge"), ("edge", "server"), ("server", "dev")])
def test_the_larger_set_holds_the_smaller_one_at_the_same_versions(smaller: str, larger: str) -> None:
    assert pins(smaller).items() <= pins(larger).items()


def test_imports_go_in_one_direction() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_command_starts_without_the_server() -> None:
    heavy = "{'duckdb', 'fastapi', 'nicegui', 'numpy', 'pydantic', 'sqlalchemy', 'rich'}"
    code = (
        f"import sys, godwit.cli.main; sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_server_loads_nothing_that_is_rarely_needed() -> None:
    # 2 to 25 MB each, in a process that is to stay under 180 MB at rest
    heavy = (
        "{'alembic', 'asn1crypto', 'authlib', 'google.protobuf', 'httpx', 'psycopg', 'pyarrow', 'rich', "
        "'segno', 'sqlalchemy.dialects.postgresql', 'structlog'}"
    )
    code = f"import sys, godwit.server.main; sys.exit(str(sorted({heavy} & set(sys.modules))).removeprefix('[]') or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_server_without_uvloop_says_so_in_one_sentence(tmp_path: Path) -> None:
    # None in sys.modules: Python refuses the import as if the package were not there.
    code = (
        "import sys; sys.modules['uvloop'] = None\n"
        "from godwit.cli.main import run\n"
        f"sys.exit(run(['demo', '--data-dir', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("godwit: the server needs uvloop")
    assert "pip install 'godwit[server]'" in line
