"""Is the AsyncAPI document what its official parser takes for one?"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from godwit.contract.asyncapi import asyncapi_document

CHECK = """
const { Parser } = require('@asyncapi/parser');
const text = require('fs').readFileSync(process.argv[2], 'utf8');
new Parser().parse(text).then(({ document, diagnostics }) => {
  const errors = diagnostics.filter((each) => each.severity === 0);
  console.log(JSON.stringify({ ok: document !== undefined, errors: errors.map((each) => each.message) }));
});
"""


@pytest.fixture(scope="module")
def parser_dir() -> Path:
    directory = Path.home() / ".cache" / "godwit-tests" / "asyncapi"
    if not (directory / "node_modules" / "@asyncapi" / "parser").exists():
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "package.json").write_text('{"private": true}')
        command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "@asyncapi/parser@3"]
        subprocess.run(command, cwd=directory, check=True, timeout=300)
    return directory


def ask(parser_dir: Path, tmp_path: Path, asyncapi: dict[str, Any]) -> dict[str, Any]:
    document = tmp_path / "asyncapi.json"
    document.write_text(json.dumps(asyncapi))
    script = parser_dir / "check.js"
    script.write_text(CHECK)
    done = subprocess.run(
        ["node", str(script), str(document)], cwd=parser_dir, check=True, timeout=60, capture_output=True, text=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.real
def test_the_official_parser_accepts_it(parser_dir: Path, tmp_path: Path) -> None:
    assert ask(parser_dir, tmp_path, asyncapi_document()) == {"ok": True, "errors": []}


@pytest.mark.real
def test_the_official_parser_would_have_said_so(parser_dir: Path, tmp_path: Path) -> None:
    """What the test above relies on: an example that does not fit its schema, and a reference to nothing, are told."""
    broken = asyncapi_document()
    broken["components"]["messages"]["TelemetryData"]["examples"][0]["payload"]["sensors"] = "warm"
    broken["operations"]["receiveDeviceStatus"]["channel"]["$ref"] = "#/channels/nothing"
    answer = ask(parser_dir, tmp_path, broken)
    assert not answer["ok"]
    assert len(answer["errors"]) >= 2
