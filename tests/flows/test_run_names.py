"""What runs are called on Prefect's page."""

from datetime import datetime

import pytest

from flows.orchestration import run_names

WHEN = datetime(2026, 3, 1, 22, 5)


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ("/archive/Glass plates/", "Glass plates"),
        ("colour", "colour"),
        ("/", "/"),
        ("/a/evil\nname", "evil\\nname"),
        (None, "no folder"),
    ],
)
def test_a_run_is_called_after_its_folder_and_date(output, name):
    assert run_names.name_of({"output": output}, WHEN) == f"{name}, 2026-03-01 22:05"


MADE_UP = ("", "hasty-cobra", "nu3-tarakis-shift", "mu183-hoarwell", "phi2-selay", "xi-canis-majoris")
TYPED = ("typed", "Night 3", "box-12-a", "1910-albums")


@pytest.mark.parametrize(("given", "stays"), [*((name, True) for name in TYPED), *((name, False) for name in MADE_UP)])
def test_a_name_that_somebody_gave_stays(given, stays, monkeypatch):
    monkeypatch.setattr(run_names, "flow_run", type("Run", (), {"name": given, "parameters": {"output": "/out"}}))
    assert (run_names.named() == given) is stays
    assert stays or run_names.named().startswith("out, 2")
