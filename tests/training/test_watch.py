"""The line that says what a training run is doing."""

from __future__ import annotations

from training.watch import Watch


def test_steps_are_told_from_the_first_on_and_once_a_second():
    seconds, told = 0.0, list[str]()
    watch = Watch(told.append, lambda: seconds)
    watch.doing("reading")
    for step in range(1, 101):
        seconds += 0.25
        watch.stepped(step, 1000, 8, lambda step=step: {"content": 1 / step})
    watch.doing("validating")
    assert told[:2] == ["reading", "step 1/1000, content 1"]
    assert told[-1] == "validating"
    assert len(told) == 2 + 25
    assert told[-2] == "step 97/1000, content 0.01031, 32.0 pictures/s, 0:03:46 left"


def test_a_loss_that_was_just_written_stays_in_the_line():
    seconds, told = 0.0, list[str]()
    watch = Watch(told.append, lambda: seconds)
    for means in ({"content": 0.5}, {}):
        seconds += 2
        watch.stepped(3, 9, 8, lambda means=means: means)
    assert "content 0.5" in told[1]
