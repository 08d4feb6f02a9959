"""Kills at any moment: no decision is lost, and after the next command nothing is out that may not be."""

from __future__ import annotations

from tests.killed_desk import Told, adapt, draw_scans, history


def test_killed_histories_lose_no_decision_and_let_out_nothing(command, tmp_path):
    draw_scans(tmp_path / "scans")
    ran = command("run", tmp_path / "scans", "-o", tmp_path / "template", "--engine", "identity", "--tile", "32")
    assert ran.code == 0, ran.err
    adapt(tmp_path / "template")
    told = Told()
    for seed in range(3):
        history(tmp_path / "template", tmp_path / "history", seed, told)
    assert told.faults == []
    assert told.counts["histories"] == 3
    assert any(name.startswith("kills while") for name in told.counts)
