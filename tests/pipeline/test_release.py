"""What may leave the house: decisions, policy, and both together."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.results.decisions import decide, decisions_beside, read_decisions
from pipeline.results.policy import Policy, Subject, terms_of
from pipeline.results.release import rules_to_lift, verdict_on
from pipeline.results.sidecar import Sidecar
from tests.review_model import histories, played, released, write_sidecar
from tests.strategies import examples


@given(history=histories)
@examples(150)
def test_nothing_unapproved_goes_out_and_no_decision_is_lost(history, tmp_path_factory):
    output = tmp_path_factory.getbasetemp() / "history"
    model = played(output, history)
    decisions = read_decisions(output)
    assert released(output, decisions) == {stem for stem in model.made if model.goes_out(stem)}
    assert sum(map(len, decisions.values())) == len(model.said)


def test_new_colours_need_a_new_decision(tmp_path):
    result = write_sidecar(tmp_path, "a")
    decide(result, "approve", "Ada")
    assert verdict_on(tmp_path, "a").state == "approved"
    write_sidecar(tmp_path, "a", version=1)
    assert not verdict_on(tmp_path, "a")
    write_sidecar(tmp_path, "a", file=1)
    assert not verdict_on(tmp_path, "a")
    write_sidecar(tmp_path, "a")
    assert verdict_on(tmp_path, "a").approved_by == ("Ada",)


def test_one_person_is_not_four_eyes(tmp_path):
    (tmp_path / "policy.yaml").write_text("review: {approvals: 2}")
    result = write_sidecar(tmp_path, "a")
    for name in ("Ada Lovelace", "ada  lovelace", "ADA LOVELACE "):
        decide(result, "approve", name)
    assert verdict_on(tmp_path, "a", unreviewed=True).state == "waiting"
    decide(result, "approve", "Grace Hopper")
    assert verdict_on(tmp_path, "a").approved_by == ("ADA LOVELACE", "Grace Hopper")


def test_a_rejection_outweighs_approvals_until_it_is_undone(tmp_path):
    result = write_sidecar(tmp_path, "a")
    decide(result, "approve", "Ada")
    decide(result, "reject", "Grace", reason="blue faces")
    assert "blue faces" in verdict_on(tmp_path, "a", unreviewed=True).reason
    decide(result, "undo", "Grace")
    assert verdict_on(tmp_path, "a")


def test_a_decision_on_colours_that_changed_meanwhile_is_refused(tmp_path):
    result = write_sidecar(tmp_path, "a", version=1)
    with pytest.raises(UsageError, match="look at them first"):
        decide(result, "approve", "Ada", version="256-128-hann-none-00000000")
    assert decisions_beside(result) == ()


def test_a_decision_that_cannot_be_read_stops_the_release(tmp_path):
    result = write_sidecar(tmp_path, "a")
    decide(result, "approve", "Ada")
    decide(result, "reject", "Grace")
    rejection = max(tmp_path.glob("*.decision.json"))
    rejection.write_text(rejection.read_text()[:50])
    assert verdict_on(tmp_path, "a", unreviewed=True).state == "unknown"


def test_a_later_rule_withdraws_what_was_approved_before(tmp_path):
    result = write_sidecar(tmp_path, "albums/a", keywords=("Sacred",))
    decide(result, "approve", "Ada")
    assert verdict_on(tmp_path, "albums/a")
    policy = "rules: [{name: sacred things, action: hold, keywords: [sacred]}]"
    (tmp_path / "policy.yaml").write_text(policy)
    assert verdict_on(tmp_path, "albums/a").state == "held"
    lifts = rules_to_lift(Sidecar.read(result), Policy.read(tmp_path), "albums/a")
    made = decide(result, "approve", "Ada", lifts=lifts)
    assert made.lifts[0].startswith("sacred things#")  # who lifted what is on record
    assert verdict_on(tmp_path, "albums/a")
    (tmp_path / "policy.yaml").write_text(policy.replace("hold", "never"))
    assert verdict_on(tmp_path, "albums/a").state == "forbidden"


def test_a_result_whose_keywords_are_not_known_is_not_let_out_by_a_rule_on_keywords(tmp_path):
    result = write_sidecar(tmp_path, "a")
    values = json.loads(result.read_text())
    values["source"]["metadata"] = {}
    result.write_text(json.dumps(values))
    decide(result, "approve", "Ada")
    (tmp_path / "policy.yaml").write_text("rules: [{name: x, action: never, keywords: [sacred]}]")
    assert verdict_on(tmp_path, "a").state == "forbidden"


@pytest.mark.parametrize(
    ("pattern", "path", "caught"),
    [
        ("private", "/scans/private/x.tif", True),
        ("private", "/scans/private/deep/er/x.tif", True),
        ("Private/Deep", "/scans/private/deep/x.tif", True),
        ("deep", "/scans/private/deeper/x.tif", False),
        ("private", "/scans/private.tif", False),
        ("/scans/private", "/scans/private/x.tif", True),
        ("/private", "/scans/private/x.tif", False),
        ("priv*", "/scans/private/x.tif", True),
        ("e\u0301t\u00e9", "/scans/\u00c9TE\u0301/x.tif", True),
    ],
)
def test_folders_are_matched_with_all_below_them(pattern, path, caught):
    policy = Policy.from_json({"rules": [{"name": "r", "action": "never", "folders": [pattern]}]})
    assert bool(policy.forbidding(Subject("x", path))) == caught


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rules: [{name: a, action: never, folder: x}]", "'folder' is not known"),
        ("rules: [{name: a, action: never}]", "names nothing"),
        ("rules: [{name: a, action: nver, names: x}]", "'nver'"),
        ("rules: [{name: a, action: never, numbers: [007]}]", "in quotes"),
        ("rules: [{action: never, names: x}]", "no name"),
        ("rules: [{name: a, action: label, names: x}]", "label"),
        ("rules: {name: a}", "not a list"),
        ("review: {approvals: two}", "'two'"),
        ("review: {approvals: 2, people: [Ada]}", "never be had"),
        ("- a", "not a list of keys"),
        ("a: [", "not YAML"),
        ("a: &a [*a]", "not known"),
    ],
)
def test_a_policy_with_a_mistake_is_refused_whole(text, told, tmp_path):
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(UsageError, match=told) as refused:
        Policy.read(tmp_path)
    assert "\n" not in str(refused.value)


@given(text=st.text(max_size=60))
@examples(100)
def test_any_text_is_a_policy_or_one_line(text, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    (folder / "policy.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    told = ""
    try:
        Policy.read(folder)
    except UsageError as error:
        told = str(error)
    assert "\n" not in told


def test_keywords_and_numbers_are_found_in_iptc_and_xmp():
    iptc = b"\x1c\x02\x19\x00\x06sacred\x1c\x02\x67\x00\x04K 12"
    xmp = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
    <rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
    <dc:identifier>B 7</dc:identifier><dc:subject><rdf:Bag><rdf:li>mask</rdf:li></rdf:Bag></dc:subject>
    <e:ArtworkOrObject><rdf:Bag><rdf:li rdf:parseType="Resource"><e:AOSourceInvNo>1987.3</e:AOSourceInvNo>
    <e:AOTitle>x</e:AOTitle></rdf:li></rdf:Bag></e:ArtworkOrObject></rdf:Description></rdf:RDF></x:xmpmeta>"""
    found = terms_of(EmbeddedMetadata(iptc=iptc, xmp=xmp))
    assert found == {"keywords": ["sacred", "mask"], "numbers": ["K 12", "B 7", "1987.3"]}
    assert terms_of(EmbeddedMetadata(iptc=iptc[:-2], xmp=xmp[:-9])) == {"keywords": [], "numbers": []}
