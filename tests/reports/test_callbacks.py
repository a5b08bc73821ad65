"""What the callbacks of all trainers share."""

import inspect

import pytest

import stepscope
from stepscope.reports.callbacks import Settings


def test_callbacks_accept_what_a_monitor_does():
    settings = inspect.signature(stepscope.Monitor).parameters.values()
    taken = {one.name for one in settings if one.kind is one.KEYWORD_ONLY}
    assert Settings.__optional_keys__ == taken - {"model"}


@pytest.mark.parametrize("name", ["StepsizeMonitor", "StepsizeCallback"])
def test_their_help_names_each_setting(name):
    text = inspect.getdoc(getattr(stepscope, name))
    assert all(f"`{setting}`" in text for setting in Settings.__optional_keys__)
