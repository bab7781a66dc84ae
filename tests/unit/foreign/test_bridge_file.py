"""The file of bridges: what it means, and what it is refused for."""

import re
from pathlib import Path

import pytest

from godwit.contract.errors import RejectedError
from godwit.server.foreign.bridge_file import Rule, load_bridges, overlap

HEAD = '[[bridge]]\nname = "office"\nhost = "mqtt.example.com"\nport = 8883\n'
RULE = '[[bridge.rule]]\ndirection = "out"\nfilter = "devices/+/telemetry"\n'


def load(tmp_path, text):
    path = tmp_path / "bridges.toml"
    path.write_text(text)
    return load_bridges(str(path))


def test_a_whole_file(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    (bridge,) = load(tmp_path, HEAD + f'username = "site"\npassword_file = "{secret}"\ntls = true\n' + RULE)
    terms = bridge.terms()
    assert (terms.address, terms.client_id, terms.password) == (
        "mqtt.example.com:8883",
        "godwit-bridge-office",
        "s3cret",
    )
    assert terms.tls is not None
    assert bridge.rules("out") == [Rule("out", "devices/+/telemetry")]
    assert bridge.rules("in") == []
    assert load_bridges("") == ()


def test_the_file_of_the_docs_is_one(tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    (example,) = re.findall(r"^```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (bridge,) = load(tmp_path, example)
    assert bridge.rules("out")[0].rewrite("devices/m-1/telemetry") == "site-1/devices/m-1/telemetry"
    assert bridge.rules("in")[0].rewrite("site-1/devices/m-1/commands") == "devices/m-1/commands"


def test_topics_are_rewritten_by_exchanging_prefixes():
    out = Rule("out", "devices/+/telemetry", local_prefix="plant/", remote_prefix="site-1/plant/")
    assert out.source == "plant/devices/+/telemetry"
    assert out.rewrite("plant/devices/a/telemetry") == "site-1/plant/devices/a/telemetry"
    assert out.rewrite("devices/a/telemetry") is None
    into = Rule("in", "devices/+/commands", remote_prefix="site-1/")
    assert into.source == "site-1/devices/+/commands"
    assert into.rewrite("site-1/devices/a/commands") == "devices/a/commands"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[bridge", "BRIDGES="),
        ('[[bridge]]\nname = "a"\nhost = "h"\nport = 0\n' + RULE, "$.bridge[0].port"),
        (HEAD, "rule"),
        (HEAD + "colour = 1\n" + RULE, "colour"),
        (HEAD + RULE + HEAD + RULE, "two bridges are called 'office'"),
        (HEAD + RULE.replace("out", "both"), "direction"),
        (HEAD + RULE.replace("devices/+", "devices/x+"), "no filter"),
        (HEAD + RULE.replace("devices/+/telemetry", "$SYS/#"), "no filter"),
        (HEAD + RULE + 'remote_prefix = "site"\n', "has to end with /"),
        (HEAD + RULE + 'remote_prefix = "+/"\n', "no prefix of a topic"),
        (HEAD + RULE + RULE.replace("+/telemetry", "#"), "match the same topics"),
        (HEAD + 'password = "a"\npassword_file = "b"\n' + RULE, "not both"),
    ],
)
def test_faults_are_named(tmp_path, text, said):
    with pytest.raises(RejectedError) as refusal:
        load(tmp_path, text)
    assert said in str(refusal.value)
    assert refusal.value.code == "invalid-setting"


def test_missing_files_are_named(tmp_path):
    with pytest.raises(RejectedError, match="cannot be read"):
        load_bridges(str(tmp_path / "none.toml"))
    (bridge,) = load(tmp_path, HEAD + 'ca_file = "/no/such/file"\n' + RULE)
    with pytest.raises(RejectedError, match="bridge office: ca_file=/no/such/file"):
        bridge.terms()
    (bridge,) = load(tmp_path, HEAD + 'cert_file = "/no/such/file"\n' + RULE)
    with pytest.raises(RejectedError, match="belong together"):
        bridge.terms()


@pytest.mark.parametrize(
    ("one", "other", "is_so"),
    [
        ("a/b", "a/b", True),
        ("a/+", "a/b", True),
        ("a/+", "+/b", True),
        ("a/#", "a", True),
        ("#", "x/y/z", True),
        ("a/b", "a/c", False),
        ("a/+", "a/b/c", False),
        ("a/b/#", "a/c/#", False),
    ],
)
def test_overlap(one, other, is_so):
    assert overlap(one, other) is is_so
    assert overlap(other, one) is is_so
