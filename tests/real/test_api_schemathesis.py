"""Does the API keep to its own OpenAPI document, whatever a client sends?"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "api"))
from open_routes import OPEN

from conftest import Rig
from godwit.server.accounts.principal import Principal

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 15


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("schemathesis"))
    yield rig
    rig.stop()


def reaches_the_wire(case: Any) -> bool:
    """Tell whether what the generator made wrong is still there in the request.

    It may take the token away, which the test adds again, and give an unknown parameter an empty list, or a list of
    such, which a query string cannot say.
    """
    wrong = {place for place, part in case.meta.components.items() if part.mode is GenerationMode.NEGATIVE}
    url = re.findall(r"https?://[^\s']*", case.as_curl_command())[-1]  # its last word, and encoded
    said = parse_qs(urlsplit(url).query, keep_blank_values=True)
    if ParameterLocation.QUERY in wrong and set(said) >= set(case.query or {}):
        return True
    return bool(wrong - {ParameterLocation.QUERY, ParameterLocation.HEADER})


def has_wrong_requests(operation: Any) -> bool:
    """Tell whether a request can be wrong: not where there is but the token and a path that takes any word."""
    any_word = {"type": "string"}
    return bool(operation.body) or any(
        parameter.location is ParameterLocation.QUERY
        or (parameter.location is ParameterLocation.PATH and schema_of(parameter) != any_word)
        for parameter in operation.iter_parameters()
    )


def schema_of(parameter: Any) -> dict[str, Any]:
    """Return what a parameter's value has to be."""
    return {
        word: value for word, value in parameter.definition["schema"].items() if word not in {"title", "description"}
    }


@pytest.mark.real
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.filterwarnings("ignore")  # of the generator's own libraries
def test_the_api_keeps_its_word(rig: Rig, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", rig.app)
    headers = {"Authorization": f"Bearer {rig.tokens.admin_token}"}
    checks = CHECKS if mode is GenerationMode.POSITIVE else [*CHECKS, negative_data_rejection]
    failures = []
    for result in schema.get_all_operations():
        operation = result.ok()
        if mode is GenerationMode.NEGATIVE and not has_wrong_requests(operation):
            continue

        @settings(
            max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def keeps_its_word(case) -> None:
            assume(mode is GenerationMode.POSITIVE or reaches_the_wire(case))
            case.call_and_validate(headers=headers, checks=checks)

        try:
            keeps_its_word()
        except Exception as error:  # noqa: BLE001 - all of them are shown at once
            failures.append(f"{operation.method.upper()} {operation.path}: {type(error).__name__} {error}"[:1500])
    assert not failures, "\n\n".join(failures)


OWN = {"/api/v1/account/password", "/api/v1/sessions/{sessionId}", "/api/v1/tokens", "/api/v1/tokens/{tokenId}"}
"""One's own matters, which whoever may look may change."""


@pytest.mark.real
@pytest.mark.parametrize("who", ["nobody", "a stranger", "a viewer"])
@pytest.mark.filterwarnings("ignore")  # of the generator's own libraries
def test_nobody_does_what_he_may_not(rig: Rig, who: str) -> None:
    """Whatever is sent: without a token 401, for a change by a viewer 403, before anything of it is read."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", rig.app)
    viewer = rig.accounts.tokens.create(Principal("admin"), "viewer", grants={"*": "viewer"}).secret
    token = {"nobody": "", "a stranger": "Bearer gwt_nobodys", "a viewer": f"Bearer {viewer}"}[who]
    status = 403 if who == "a viewer" else 401
    failures, asked = [], 0
    is_open = {path.replace(":path}", "}") for path in OPEN}  # as the document writes it
    for result in schema.get_all_operations():
        operation = result.ok()
        is_look = operation.method.upper() == "GET"
        if operation.path in is_open or (who == "a viewer" and (is_look or operation.path in OWN)):
            continue
        asked += 1

        @settings(
            max_examples=5, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
        def is_refused(case) -> None:
            case.headers = {}
            answer = case.call(headers={"Authorization": token})
            assert answer.status_code == status, f"{answer.status_code}: {answer.text[:200]}"
            assert answer.headers["content-type"][0] == "application/problem+json"
            assert answer.json()["status"] == status

        try:
            is_refused()
        except Exception as error:  # noqa: BLE001 - all of them are shown at once
            failures.append(f"{operation.method.upper()} {operation.path}: {error}"[:600])
    assert not failures, "\n\n".join(failures)
    assert asked > (25 if who == "a viewer" else 60)
