"""What Prefect's web page makes a form of: every parameter has a title, help and, where it can, choices or a range."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from pathlib import Path

import jsonschema
import pytest
import yaml
from prefect.utilities.callables import parameter_schema

from flows.orchestration.parameters import check_parameters
from pipeline.errors import UsageError

DEPLOYMENTS = yaml.safe_load((Path(__file__).parents[2] / "deploy" / "prefect.yaml").read_text())["deployments"]
pytestmark = pytest.mark.unit
BY_NAME = {each["name"]: each["entrypoint"] for each in DEPLOYMENTS}


def schema_of(name):
    module, _, function = BY_NAME[name].rpartition(".")
    return parameter_schema(getattr(import_module(module), function)).model_dump()


@pytest.mark.parametrize("name", BY_NAME)
def test_every_parameter_has_a_title_and_help(name):
    for parameter, shown in schema_of(name)["properties"].items():
        assert shown["title"] not in ("", parameter), parameter
        assert len(shown["description"]) > 10, parameter


@pytest.mark.parametrize("name", BY_NAME)
def test_defaults_are_among_what_the_form_takes(name):
    module, _, function = BY_NAME[name].rpartition(".")
    parameters = signature(getattr(import_module(module), function).fn).parameters.values()
    for parameter in parameters:
        if parameter.default is not parameter.empty:
            jsonschema.validate(parameter.default, schema_of(name)["properties"][parameter.name])


@pytest.mark.parametrize(
    ("parameter", "good", "bad"),
    [
        ("inputs", ["/scans"], []),
        ("tile", "2048x4096", "big"),
        ("tile", "whole", 0),
        ("stride", 64, -1),
        ("stride", "64x128", "half"),
        ("window", "hann", "square"),
        ("precision", "bf16", "fp64"),
        ("workers", "auto", 0),
        ("cluster", "cuda", "moon"),
        ("limit_memory", "1500MB", "lots"),
        ("keep", 1, 0),
        ("quality", 1.05, 0.5),
        ("quality", "none", "good"),
        ("vivid", 0.5, 1.5),
        ("formats", "tiff, iiif", "tiff,bmp"),
        ("pages", "1,3-5", "some"),
        ("pages", 2, 0),
        ("until", "23:59", "24:00"),
        ("until", "+1h30m", "soon"),
    ],
)
def test_a_form_takes_what_a_run_takes(parameter, good, bad):
    schema = schema_of("colorize-archive")["properties"][parameter]
    jsonschema.validate(good, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad, schema)


@pytest.mark.parametrize(
    ("flow", "given", "hazard"),
    [
        ("colorize-archive", {"stride": 300}, "stride 300 is larger than the tile"),
        ("colorize-archive", {"tile": "512x128", "stride": "64x256"}, "stride 64x256 is larger than the tile"),
        ("colorize-archive", {"until": "2020-01-01"}, "would not know when to end"),
        ("colorize-archive", {"quality": "0.5"}, "quality '0.5'"),
        ("reprocess-archive", {"tile": 128, "stride": 200}, "stride 200 is larger than the tile"),
        ("reprocess-archive", {"worse_than": 0.1}, "worse-than 0.1"),
    ],
)
def test_what_a_run_would_refuse_is_refused_before_it_is_asked_for(flow, given, hazard):
    with pytest.raises(UsageError, match=hazard):
        check_parameters(flow, {"output": "/colour", **given})


def test_what_only_the_worker_can_know_is_not_looked_at():
    elsewhere = {"inputs": ["/scans"], "model": "/models/first", "scheduler": "/there/scheduler.json", "tls_ca": "/a"}
    check_parameters("colorize-archive", {**elsewhere, "tile": 512, "stride": 300})
    check_parameters("reprocess-archive", {"output": "/colour", "model": "/models/first", "stride": 300})
    check_parameters("train-generator", {"data": "/photographs"})


def test_deployments_are_four_and_the_night_is_off():
    assert list(BY_NAME) == ["colorize-archive", "reprocess-archive", "train-generator", "build-engines"]
    (nightly,) = DEPLOYMENTS[0]["schedules"]
    assert nightly["active"] is False
