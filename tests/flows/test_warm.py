"""What most tests run in place of a new interpreter."""

import pytest


@pytest.mark.parametrize(
    "words", [("--version",), ("models",), ("run",), ("inspect", "/nowhere"), ("verify", "/nowhere"), ("no-command",)]
)
def test_a_forked_command_says_and_returns_what_a_new_interpreter_does(command, cold_command, words):
    assert command(*words) == cold_command(*words)
