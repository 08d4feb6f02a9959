"""What Prefect's web page makes a form of: every parameter has a title, help and, where it can, choices or a range."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest
import yaml
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate

from flows.orchestration.parameters import check_parameters, requested
from flows.request import ReprocessRequest, RunRequest
from pipeline.errors import UsageError

DEPLOYMENTS = yaml.safe_load((Path(__file__).parents[2] / "deploy" / "prefect.yaml").read_text())["deployments"]
pytestmark = pytest.mark.unit
BY_NAME = {each["name"]: each["entrypoint"] for each in DEPLOYMENTS}


def flow_of(name):
    module, _, function = BY_NAME[name].rpartition(".")
    return getattr(import_module(module), function)


def schema_of(name):
    """As ``prefect deploy`` sends it to a server."""
    return parameter_schema(flow_of(name)).model_dump()


def check_on_server(name, **given):
    """As a server does before it makes a run."""
    validate(given, schema_of(name), raise_on_error=True, ignore_required=True)


@pytest.mark.parametrize("name", BY_NAME)
def test_every_parameter_has_a_title_and_help(name):
    for parameter, shown in schema_of(name)["properties"].items():
        assert shown["title"] not in ("", parameter), parameter
        assert len(shown["description"]) > 10, parameter


@pytest.mark.parametrize("name", BY_NAME)
def test_a_server_takes_the_flows_own_defaults(name):
    """Null among them: older deployments have it where the form now leaves a field out."""
    parameters = signature(flow_of(name).fn).parameters.values()
    check_on_server(name, **{each.name: each.default for each in parameters if each.default is not each.empty})


@pytest.mark.parametrize("name", BY_NAME)
def test_what_may_stay_empty_is_sent_only_if_it_was_given(name):
    """A default of null would be sent with every run, and shown as a type that has to be changed first."""
    for parameter, shown in schema_of(name)["properties"].items():
        assert shown.get("default", "none") is not None, parameter


@pytest.mark.parametrize("name", BY_NAME)
def test_no_choice_is_in_the_words_of_python(name):
    """The page calls a type without a title int, str or None."""
    for parameter, shown in schema_of(name)["properties"].items():
        for kind in shown.get("anyOf", ()):
            assert kind.get("title"), parameter


@pytest.mark.parametrize("name", ["colorize-archive", "reprocess-archive"])
def test_a_form_shows_group_after_group(name):
    in_order = sorted(schema_of(name)["properties"].values(), key=lambda each: each["position"])
    groups = [each["title"].partition(" \N{MIDDLE DOT} ")[0] for each in in_order]
    assert list(dict.fromkeys(groups)) == [
        group for group in ("What", "How it looks", "When it stops", "Where it runs") if group in groups
    ]
    assert groups == sorted(groups, key=list(dict.fromkeys(groups)).index), "each group in one piece"


def test_formats_are_chosen_from_a_list_or_written():
    check_on_server("colorize-archive", formats=["tiff", "iiif"])
    check_on_server("colorize-archive", formats="tiff,iiif")
    with pytest.raises(ValidationError, match="formats"):
        check_on_server("colorize-archive", formats=["bmp"])
    chosen = requested(RunRequest, {"inputs": ["a, b"], "output": "/colour", "formats": ["tiff", "iiif"]})
    assert (chosen.formats, chosen.inputs) == ("tiff,iiif", ["a, b"])
    assert requested(ReprocessRequest, {"output": "/colour", "scans": ["1910*"]}).scans == ["1910*"]
    check_parameters("colorize-archive", {"output": "/colour", "formats": ["tiff", "iiif"]})


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
    check_on_server("colorize-archive", **{parameter: good})
    with pytest.raises(ValidationError, match=parameter):
        check_on_server("colorize-archive", **{parameter: bad})


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
