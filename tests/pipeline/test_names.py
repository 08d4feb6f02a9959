"""Names as people see them."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.support.names import folded, shown, shown_json

NAMES = st.text(st.characters(codec=None) | st.sampled_from("\x1b\n\r\u2028\u202e\udcff\x7f\x9bäé東"))


@given(NAMES)
def test_what_is_shown_is_one_line_of_text_that_turns_nothing_around(name):
    text = shown(name)
    assert len((text + "|").splitlines()) == 1
    assert not {letter for letter in text if ord(letter) < 0x20 or 0x7F <= ord(letter) < 0xA0}
    assert not set(text) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert shown(text) == text
    text.encode()


@given(NAMES)
def test_the_json_that_is_shown_says_the_same(name):
    text = shown_json({"name": name})
    assert json.loads(text) == {"name": name}
    assert all(shown(line) == line for line in text.split("\n"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a\nb", "a\\nb"),
        ("\x1b[2Ja", "\\x1b[2Ja"),
        ("a\x9bb", "a\\x9bb"),
        (os.fsdecode(b"caf\xe9"), "caf\\xe9"),
        ("a\u202egpj", "a\\u202egpj"),
        ("Köln  東京 ‍👩‍👩‍👧", "Köln  東京 ‍👩‍👩‍👧"),
        ("می‌خواهم", "می‌خواهم"),
    ],
)
def test_only_what_is_not_seen_is_spelt_out(name, text):
    assert shown(name) == text


@given(st.text(st.characters(codec="utf-8")))
def test_folding_twice_changes_nothing(name):
    assert folded(folded(name)) == folded(name)
