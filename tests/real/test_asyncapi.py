"""Is the AsyncAPI document what its official parser takes for one, and is everything of the first contract in it?"""

import json
import subprocess
from pathlib import Path

import pytest

from godwit.contract.asyncapi import asyncapi_document, asyncapi_html

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


@pytest.mark.real
def test_the_official_parser_accepts_it(parser_dir: Path, tmp_path: Path) -> None:
    document = tmp_path / "asyncapi.json"
    document.write_text(json.dumps(asyncapi_document()))
    script = parser_dir / "check.js"
    script.write_text(CHECK)
    done = subprocess.run(
        ["node", str(script), str(document)], cwd=parser_dir, check=True, timeout=60, capture_output=True, text=True
    )
    assert json.loads(done.stdout) == {"ok": True, "errors": []}


def test_the_five_channels_and_message_types_are_there() -> None:
    document = asyncapi_document()
    addresses = {channel["address"] for channel in document["channels"].values()}
    wanted = ("telemetry", "commands", "status")
    assert {f"devices/{{deviceId}}/{tail}" for tail in wanted} | {"alerts/{severity}", "system/heartbeat"} <= addresses
    messages = {"TelemetryData", "DeviceCommand", "DeviceStatus", "CriticalAlert", "SystemHeartbeat"}
    assert messages <= set(document["components"]["messages"])


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = asyncapi_html(asyncapi_document())
    assert page.endswith("</html>")
    assert "http://" not in page
    assert "https://" not in page
    assert "devices/{deviceId}/telemetry" in page
