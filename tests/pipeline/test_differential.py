"""Every fifth kind of file is as light as other programs say; all of them by ``tests.benchmarks.differential``."""

import dataclasses
import itertools

import pytest

from tests.benchmarks import differential
from tests.benchmarks.variants import all_variants, gray, unit
from tests.benchmarks.variants.png import png


def test_lightness_is_that_of_other_programs():
    outcomes = differential.judge(itertools.islice(all_variants(), 0, None, 5))
    assert len(outcomes) > 200
    assert [(each.variant.family, each.variant.name, each.unexplained) for each in outcomes if each.unexplained] == []
    assert sum(len(each.agree) >= 2 for each in outcomes) > 0.85 * len(outcomes)
    table = differential.table_of(outcomes)
    assert f"| **all** | {len(outcomes)} |" in table


def test_names_of_variants_tell_them_apart():
    names = [(each.family, each.name) for each in all_variants()]
    assert len(names) > 1000
    assert len(set(names)) == len(names)


def test_a_picture_that_is_lighter_than_others_say_is_a_fault(monkeypatch: pytest.MonkeyPatch):
    whole = differential.Variant("a", "b", png(gray(), 8, 0), ".png", written=unit(gray()))
    negative = dataclasses.replace(whole, make=png(255 - gray(), 8, 0))
    outcomes = differential.judge([whole, negative])
    assert outcomes[0].unexplained == []
    assert len(outcomes[0].agree) >= 4
    assert outcomes[1].unexplained == [differential.WRITTEN]
    # What is refused though others read it is one too.
    refused = dataclasses.replace(whole, make=b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 1\nMAXVAL 255\nENDHDR\n7", written=None)
    assert differential.judge([refused])[0].unexplained == [differential.OURS]
    # Nobody is explained away where none agrees.
    monkeypatch.setitem(differential.EXPLAINED, (differential.WRITTEN, "k"), "for a reason")
    alone = dataclasses.replace(negative, kinds=frozenset("k"))
    monkeypatch.setattr(differential, "REFEREES", {})
    assert differential.judge([alone])[0].unexplained == [differential.WRITTEN]
