from __future__ import annotations

import base64
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("skimage")
pytest.importorskip("yaml")

from tests.chromium import Browser, chromium, fits
from tests.patience import wait_until
from training.evaluation.quiz import Candidate, Case, jpeg, pick_cases, questions, write_quiz

MODELS = ("one", "another <b>&amp; naïve</b> </script>")


def candidates(count: int, models: tuple[str, ...] = MODELS) -> list[Candidate]:
    rng = np.random.default_rng(0)

    def picture() -> bytes:
        return jpeg(cv2.resize(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8), (340, 256)))

    return [Candidate(f"folder/{i}.png", picture(), {model: picture() for model in models}) for i in range(count)]


def test_half_is_real_and_models_have_equal_shares() -> None:
    given = candidates(40)
    cases = pick_cases(given)
    assert len(cases) == questions(2) == 24
    assert Counter(case.model for case in cases) == {None: 12, **dict.fromkeys(MODELS, 6)}
    assert len({case.picture for case in cases}) == len(cases)  # no photograph twice
    by_name = {candidate.picture: candidate for candidate in given}
    for case in cases:
        own = by_name[case.picture]
        assert case.jpeg == (own.real if case.model is None else own.generated[case.model])


def test_order_is_random_but_seeded() -> None:
    given = candidates(40)
    assert pick_cases(given) == pick_cases(given)
    assert pick_cases(given, seed=1) != pick_cases(given)
    kinds = "".join("r" if case.model is None else "g" for case in pick_cases(given))
    assert 6 <= sum(a != b for a, b in itertools.pairwise(kinds)) <= 18  # neither sorted nor alternating


@pytest.mark.parametrize(("count", "models", "generated"), [(7, 2, 2), (2, 1, 1), (5, 4, 2), (60, 4, 12), (90, 12, 24)])
def test_few_photographs_and_many_models(count: int, models: int, generated: int) -> None:
    names = tuple(f"model {i}" for i in range(models))
    shares = Counter(case.model for case in pick_cases(candidates(count, names)))
    assert shares.pop(None) == generated
    assert shares.total() == generated
    assert max(shares.values()) - min(shares.values()) == 0


def test_quiz_of_nothing_is_refused() -> None:
    for given in ([], candidates(1), candidates(4, ())):
        with pytest.raises(ValueError, match="at least two photographs and one model"):
            pick_cases(given)


def test_nothing_of_the_answer_shows_in_the_page(tmp_path: Path) -> None:
    cases = pick_cases(candidates(40, ("secret-model",)))
    page = write_quiz(tmp_path, cases).read_text(encoding="utf-8")
    assert "secret-model" not in page
    assert "folder/" not in page
    assert not re.search(r"https?://|src=[\"'](?!data:)|url\(", page)
    record = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert [base64.b64decode(picture) for picture in record["pictures"]] == [case.jpeg for case in cases]
    heads = {case.jpeg[: case.jpeg.index(b"\xff\xda")] for case in cases}
    tables = {re.sub(rb"\xff\xc4.*", b"", head, flags=re.DOTALL) for head in heads}
    assert len(tables) == 1  # size, sampling and quantization are the same for both kinds


@pytest.fixture
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile"), "the quiz") as browser:
        yield browser


def wilson(k: int, n: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    interval = binomtest(k, n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def percent(share: float) -> str:
    return f"{int(100 * share + 0.5)}\N{NO-BREAK SPACE}%"


def _name(node: dict[str, Any]) -> str:
    return str(node.get("name", {}).get("value", "")).strip()


def answer_all(browser: Browser, cases: list[Case], right: int) -> list[bool]:
    """Answer by mouse and by key in turn, the first ``right`` ones right; returns what was said to be real."""
    said = []
    for i, case in enumerate(cases):
        assert browser.value("document.getElementById('at').textContent") == f"Picture {i + 1} of {len(cases)}"
        assert browser.value("document.getElementById('bar').value") == i
        browser.wait("document.getElementById('picture').complete")
        assert browser.value("document.getElementById('picture').naturalWidth") == 340
        said.append((case.model is None) == (i < right))
        if i % 2:
            browser.key("r" if said[-1] else "G")
        else:
            browser.click("#real" if said[-1] else "#generated")
    return said


def test_quiz_in_a_browser(browser: Browser, tmp_path: Path) -> None:
    cases = pick_cases(candidates(16))
    path = write_quiz(tmp_path, cases)
    browser.width(400)
    browser.open(path)
    assert fits(browser)
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    names = {(node["role"]["value"], _name(node)) for node in tree if not node["ignored"]}
    first = "Picture 1: are its colours real or generated?"
    of = f"Picture 1 of {len(cases)}"
    assert {("button", "Real"), ("button", "Generated"), ("image", first), ("progressbar", of)} <= names

    said = answer_all(browser, cases, right := 11)
    browser.wait("!document.getElementById('result').hidden")
    assert fits(browser)
    low, high = wilson(right, len(cases))
    expected = f"{right} of {len(cases)} right: {percent(right / len(cases))}"
    score = browser.value("document.getElementById('score').textContent")
    assert score == f"{expected} (95 % interval {percent(low)} to {percent(high)})"
    meaning = browser.value("document.getElementById('meaning').textContent")
    assert ("cannot be told" in meaning) == (low <= 0.5 <= high)

    rows = browser.value("[...document.querySelectorAll('#fooled tr')].map(r => [...r.cells].map(c => c.textContent))")
    assert [row[0] for row in rows] == ["real", MODELS[1], MODELS[0]]  # text, never markup
    for name, taken, _ in rows:
        own = [real for case, real in zip(cases, said, strict=True) if (case.model or "real") == name]
        assert taken == f"{sum(own)} of {len(own)} ({percent(sum(own) / len(own))})"
    items = browser.value("[...document.querySelectorAll('#list li')].map(e => [e.className, e.textContent])")
    assert [kind for kind, _ in items] == ["right"] * right + ["wrong"] * (len(cases) - right)
    assert all(case.picture in text for case, (_, text) in zip(cases, items, strict=True))
    assert "<b>" in MODELS[1]
    assert browser.value("document.querySelectorAll('#result b').length") == 0

    browser.key("r")  # after the end a key must not count
    assert browser.value("document.getElementById('score').textContent") == score
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.click("#save")
    wait_until(lambda: [p for p in tmp_path.glob("quiz-*.json") if p.stat().st_size])
    (saved,) = tmp_path.glob("quiz-*.json")
    record = json.loads(saved.read_text(encoding="utf-8"))
    assert (record["questions"], record["correct"]) == (len(cases), right)
    assert record["interval"] == pytest.approx([low, high], abs=1e-6)
    assert [(a["picture"], a["model"]) for a in record["answers"]] == [(c.picture, c.model) for c in cases]
    assert [a["said"] == "real" for a in record["answers"]] == said
    browser.click("#copy")
    browser.wait("document.getElementById('copied').textContent !== ''")

    assert not browser.troubles()
    assert all(url.startswith(("data:", "file:", "blob:")) for url in browser.requests())
