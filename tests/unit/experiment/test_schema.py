"""The JSON schema against what validation accepts and refuses."""

from __future__ import annotations

import json

import pytest
import yaml
from helpers.repository import CONFIGS, ROOT, shipped
from jsonschema import Draft202012Validator

from prosparse.experiment.schema import schema


def sections(schema):
    return {"Experiment": schema, **schema["$defs"]}


def test_the_schema_for_editors_is_the_config_that_is_validated():
    committed = json.loads((ROOT / "workflow/experiments/schema.json").read_text(encoding="utf-8"))
    assert committed == json.loads(json.dumps(schema())), (
        "python -m prosparse.experiment.schema > workflow/experiments/schema.json"
    )


def test_every_field_is_described():
    missing = [
        f"{name}.{field}"
        for name, section in sections(schema()).items()
        for field, value in section.get("properties", {}).items()
        if not value.get("description")
    ]
    assert not missing


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_experiments_fit_the_schema(path):
    problems = Draft202012Validator(schema()).iter_errors(shipped(path))
    assert not [f"{list(problem.path)}: {problem.message}" for problem in problems]


def test_the_schema_refuses_what_validation_refuses():
    raw = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    raw["runs"]["small-base"]["stages"][0]["peek"] = 1
    raw["sedes"] = [1]
    found = {tuple(problem.path) for problem in Draft202012Validator(schema()).iter_errors(raw)}
    assert {(), ("runs", "small-base", "stages", 0)} <= found
