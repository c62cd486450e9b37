"""The OpenAPI document: complete, true to what is answered, and without a hole that random requests find."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import pytest_asyncio

from dashboard.access.limits import Limits, Rate
from farm.capabilities.engine_spec import EngineSpec
from farm.capabilities.weights import Weights
from farm.errors import NotFound
from nodes.engines.table import spec_of

Operation = tuple[str, str, dict[str, Any]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def document(shared_farm: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await shared_farm.get("openapi.json")).json()
    return found


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, found in document["paths"].items():
        for method, operation in found.items():
            yield method.upper(), path, operation


def contents(part: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from part.get("content", {}).items()


def check_example(document: dict[str, Any], content: dict[str, Any], where: str) -> None:
    schema = {**content["schema"], "components": document["components"]}
    validator = jsonschema.Draft202012Validator(schema)
    wrong = [error.message for error in validator.iter_errors(content["example"])]
    assert wrong == [], where


@pytest.mark.asyncio(loop_scope="module")
async def test_every_operation_is_described(document: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in document["tags"] if tag["description"]}
    names = []
    for method, path, operation in operations(document):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["description"], where
        assert set(operation["tags"]) <= tags, where
        names.append(operation["operationId"])
    assert len(names) == len(set(names)) > 50


@pytest.mark.asyncio(loop_scope="module")
async def test_every_answer_has_an_example_that_is_one(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for status, answer in operation["responses"].items():
            where = f"{method} {path} {status}"
            assert answer["description"], where
            for kind, content in contents(answer):
                if kind == "application/json":
                    check_example(document, content, where)
                elif not kind.startswith(("image/", "video/")):
                    assert content["example"], where


@pytest.mark.asyncio(loop_scope="module")
async def test_every_request_has_an_example_that_is_one(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for kind, content in contents(operation.get("requestBody", {})):
            where = f"{method} {path} {kind}"
            if "example" in content:
                check_example(document, content, where)
                continue
            schema = content["schema"]
            if "$ref" in schema:
                schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            for name in schema["required"]:
                described = schema["properties"][name]
                assert described.get("examples") or described.get("format") == "binary", f"{where} {name}"


@pytest.mark.asyncio(loop_scope="module")
async def test_every_error_has_the_one_schema(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        errors = {status: a for status, a in operation["responses"].items() if int(status) >= 400}
        assert {"400", "401", "403", "429", "500"} <= set(errors), f"{method} {path}"
        for status, answer in errors.items():
            content = answer["content"]["application/json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Error"}, f"{method} {path} {status}"
            # No client would know what to do about a conflict that is none of its own.
            assert status != "409"


@pytest.mark.asyncio(loop_scope="module")
async def test_every_operation_says_which_key_it_wants(document: dict[str, Any]) -> None:
    assert set(document["components"]["securitySchemes"]) == {"bearer", "session", "machine"}
    assert document["security"] == [{"bearer": []}, {"session": []}]
    open_operations = {
        (method, path) for method, path, operation in operations(document) if operation.get("security") == []
    }
    assert open_operations == {
        ("GET", "/api/v1/health"),
        ("GET", "/api/v1/session"),
        ("POST", "/api/v1/session"),
        ("DELETE", "/api/v1/session"),
        ("POST", "/api/v1/join/reach"),
    }


CONFIG = """
[[operations]]
# Real ids where something is looked at, made-up ones where something is changed.
include-method = ["GET", "HEAD"]
parameters = {{ job_id = "{job_id}", segment_id = "s0-1", node = "near", slot = "cpu0", model = "{model}" }}

[[operations]]
# These never end, or last as long as a job: an event is enough.
include-path-regex = "/events$"
max-stream-events = 1
request-timeout = 5
# Last-Event-ID may come with any other header: browsers send many.
generation.allow-extra-parameters = false

[checks]
# Whether a request that is right by its schema can be carried out may depend on what lies in a file, on what
# a job has come to, on the disk: such a refusal is a 400 or 422 with its reason, and never a 409, which the
# openai clients would send again and again.
positive_data_acceptance.expected-statuses = ["2xx", "304", "400", "401", "404", "413", "416", "422"]
"""


def known_specs(model: str, weights: Weights) -> EngineSpec:
    """The models that are here without fetching anything."""
    if not model.startswith("procedural"):
        raise NotFound(f"model {model} is not here", param="model")
    return spec_of(model)


@pytest.mark.parametrize(
    ("phases", "max_examples"),
    [
        pytest.param("examples,fuzzing", 1, marks=pytest.mark.slow),
        pytest.param("examples,coverage,fuzzing", 3, marks=pytest.mark.long),
    ],
)
async def test_no_request_that_schemathesis_makes_finds_a_fault(
    start_farm: Any, serve: Any, photo: Path, tmp_path: Path, phases: str, max_examples: int
) -> None:
    often = Rate(1e6, 1e6)
    limits = Limits(read=often, change=often, submit=often, login=often, refusal=often)
    farm = await start_farm(access="the owner's token", limits=limits, spec_of=known_specs)
    farm.http.headers["Authorization"] = "Bearer the owner's token"
    job_id = await farm.finished_job(photo)
    (tmp_path / "schemathesis.toml").write_text(CONFIG.format(job_id=job_id, model="procedural"))
    url = await serve(farm.app)
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/api/v1/openapi.json"]
    command += ["--header", "Authorization: Bearer the owner's token"]
    command += ["--checks", "all", "--phases", phases, "--max-examples", str(max_examples)]
    command += ["--seed", "4", "--generation-database", "none", "--no-color", "--warnings", "off"]
    child = await asyncio.create_subprocess_exec(
        *command,
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await child.communicate()
    assert child.returncode == 0, said.decode()
