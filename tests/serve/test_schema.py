"""schemathesis sends requests that follow the OpenAPI schema, and requests that break it."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.serve.running import call

load_all_checks()

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ROUTES = [
    "GET /health", "GET /ready", "GET /metrics", "GET /v1/models", "GET /v1/models/{name}", "POST /v1/chat/completions",
    "POST /v1/embeddings", "POST /v1/rerank", "POST /v1/answer", "POST /v1/ground", "POST /v1/explain",
    "GET /v1/indexes", "POST /v1/search", "GET /v1/reports",
]  # fmt: skip


@pytest.fixture(scope="module")
def operations(address):
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    return {own.label: own for own in (found.ok() for found in schema.get_all_operations())}


def test_the_schema_lists_every_route(address, operations):
    assert set(operations) == set(ROUTES)
    for path, methods in call(address, "/openapi.json").json["paths"].items():
        for method in methods.values():
            assert method["responses"]["400"]["content"]["application/json"]["schema"], path


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("route", [route for route in ROUTES if route.startswith("POST")])
def test_no_request_breaks_the_server(operations, route, mode):
    """No status of 500 or more, and no status or body that the schema does not list."""

    @given(case=operations[route].as_strategy(generation_mode=mode))
    @settings(
        max_examples=4, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def check(case):
        if isinstance(case.body, dict) and mode is GenerationMode.POSITIVE:
            # A name that schemathesis makes up would never reach a model.
            case.body["model"] = "flamingo"
        case.validate_response(case.call(), checks=CHECKS)

    check()
