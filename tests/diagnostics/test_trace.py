"""A trace is told in a line."""

from __future__ import annotations

import torch

from stepscope import Monitor, Trace, simulate


def train(path, steps):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(optimizer, path, model=model) as monitor:
        for _ in range(steps):
            model(torch.ones(4, 3)).square().mean().backward()
            optimizer.step()
            monitor.log(loss=1.0)
        return monitor.state_dict()


def test_a_recorded_run_is_told_in_a_line(tmp_path):
    train(tmp_path / "run", 20)
    trace = Trace.load(tmp_path / "run")
    records = len(trace.steps)
    expected = (
        f"<Trace: 20 steps of torch.optim.sgd.SGD; {records} records; 2 tensor(s) of 8 coordinates; logged: loss>"
    )
    assert repr(trace) == str(trace) == expected


def test_segments_of_a_resumed_run_are_counted(tmp_path):
    train(tmp_path / "run", 20)
    train(tmp_path / "run", 10)
    trace = Trace.load(tmp_path / "run")
    resumed = sum(event.kind == "resumed" for event in trace.events)
    assert resumed == 1
    assert "; 2 segments;" in repr(trace)


def test_a_simulated_run_says_what_it_kept():
    trace = simulate("online", "adam", steps=300, seeds=2)
    assert repr(trace).startswith("<Trace: 300 steps of adam (simulated); ")
    assert repr(trace).endswith(f"path of shape {trace.path.shape}>")
    assert "\n" not in repr(trace)
