"""What the wrappers share with the optimizer inside, whichever they are."""

import copy
import pickle

import pytest
import torch
from torch import nn

from stepscope import Monitor
from stepscope.diagnostics.readers import reader_of, why_none
from stepscope.remedies import AdaFom, ClipUpdates, CProp, Demon, DemonAdam

WRAPPERS = {"CProp": CProp, "ClipUpdates": ClipUpdates, "Demon": lambda inner: Demon(inner, 50)}
BASES = {
    "SGD": lambda params, **more: torch.optim.SGD(params, 0.05, **more),
    "momentum": lambda params, **more: torch.optim.SGD(params, 0.05, momentum=0.9, **more),
    "nesterov": lambda params, **more: torch.optim.SGD(params, 0.05, momentum=0.9, nesterov=True, **more),
    "nesterov, foreach": lambda params, **more: torch.optim.SGD(
        params, 0.05, momentum=0.9, nesterov=True, foreach=True, **more
    ),
    "Adam": lambda params, **more: torch.optim.Adam(params, 0.05, **more),
    "amsgrad": lambda params, **more: torch.optim.Adam(params, 0.05, amsgrad=True, **more),
    "AdamW": lambda params, **more: torch.optim.AdamW(params, 0.05, **more),
    "NAdam": lambda params, **more: torch.optim.NAdam(params, 0.05, decoupled_weight_decay=True, **more),
    "RAdam": lambda params, **more: torch.optim.RAdam(params, 0.05, **more),
    "RMSprop": lambda params, **more: torch.optim.RMSprop(params, 0.05, momentum=0.5, **more),
    "DemonAdam": lambda params, **more: DemonAdam(params, 50, 0.005, **more),
    "AdaFom": lambda params, **more: AdaFom(params, 0.05, **more),
    "Adagrad": lambda params, **more: torch.optim.Adagrad(params, 0.05, **more),
}
WITHOUT_SECOND_MOMENT = ("SGD", "momentum", "nesterov", "nesterov, foreach", "RMSprop", "Adagrad")
WITHOUT_MOMENTUM = ("SGD", "AdaFom", "Adagrad", "DemonAdam")  # the last one's decays already
PAIRS = [
    (wrapper, base)
    for wrapper in WRAPPERS
    for base in BASES
    if not (wrapper == "ClipUpdates" and base in WITHOUT_SECOND_MOMENT)
    and not (wrapper == "Demon" and base in WITHOUT_MOMENTUM)
]


@pytest.fixture(params=WRAPPERS)
def wrap(request):
    return WRAPPERS[request.param]


def parameters(dtype=torch.float32):
    source = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=source).to(dtype)) for shape in ((5, 4), (3,))]


def drive(optimizer, params, steps=20, begin=0):
    for t in range(begin, begin + steps):
        source = torch.Generator().manual_seed(t)
        for p in params:
            p.grad = (0.3 + torch.randn(p.shape, generator=source)).to(p.dtype)
        optimizer.step()
    return [p.detach().clone() for p in params]


def adam(params):
    return torch.optim.Adam(params, 0.05)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(("wrapper", "base"), PAIRS)
def test_a_monitor_proves_the_steps_of_every_base(wrapper, base, decay):
    params = parameters()
    optimizer = WRAPPERS[wrapper](BASES[base](params, weight_decay=decay))
    monitor = Monitor(optimizer, strict=True)
    drive(optimizer, params, steps=70)
    trace = monitor.trace
    assert all(tensor.formula for tensor in trace.tensors), trace.events
    assert trace.steps[-1] == 70
    monitor.close()


def test_a_wrapper_in_a_wrapper_is_read_as_well():
    params = parameters()
    inner = torch.optim.AdamW(params, 0.05, weight_decay=0.1)
    optimizer = Demon(ClipUpdates(CProp(inner, beta=0.9)), 50)
    monitor = Monitor(optimizer, strict=True)
    drive(optimizer, params, steps=70)
    assert all(tensor.formula for tensor in monitor.trace.tensors), monitor.trace.events
    monitor.close()


def test_what_is_recorded_is_the_scaled_stepsize():
    params = parameters()
    optimizer = CProp(torch.optim.SGD(params, 0.05), beta=0.9)
    monitor = Monitor(optimizer, strict=True, coordinates="all")
    drive(optimizer, params)
    before = [p.detach().double().clone() for p in params]
    drive(optimizer, params, 1, 20)
    scalars = monitor.scalars()
    monitor.close()
    made = ((params[0].detach().double() - before[0]) / params[0].grad).abs().flatten()
    median = made.quantile(0.5, interpolation="nearest").item()
    # θ is about 1 and rounded to 6e-8, a step about 0.01.
    assert scalars["stepsize/group0.param0/p50"] == pytest.approx(median, rel=1e-3)
    assert made.max() <= 0.05 * (1 + 1e-3)


def test_groups_states_and_defaults_are_those_of_the_optimizer_inside(wrap):
    inner = adam(parameters())
    optimizer = wrap(inner)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert optimizer.param_groups is inner.param_groups
    assert optimizer.state is inner.state
    assert optimizer.defaults is inner.defaults


@pytest.mark.parametrize("outer", [True, False])
def test_a_scheduler_may_be_made_for_either(wrap, outer):
    params = parameters()
    inner = adam(params)
    optimizer = wrap(inner)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer if outer else inner, 1, 0.5)
    drive(optimizer, params, 1)
    scheduler.step()  # a scheduler whose optimizer had not stepped would warn
    assert inner.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == 0.025
    copy.deepcopy(optimizer)
    pickle.dumps(optimizer)


def test_state_dicts_stay_shared_after_loading(wrap):
    params = parameters()
    inner = adam(params)
    optimizer = wrap(inner)
    drive(optimizer, params)
    calls = []
    optimizer.register_load_state_dict_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_load_state_dict_post_hook(lambda *_: calls.append("after"))
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert calls == ["before", "after"]
    assert optimizer.param_groups is inner.param_groups
    assert optimizer.state is inner.state


def test_a_run_may_be_wrapped_from_a_checkpoint_on(wrap):
    params, plain = parameters(), adam(parameters())
    drive(plain, plain.param_groups[0]["params"])
    optimizer = wrap(adam(params))
    optimizer.load_state_dict(plain.state_dict())
    drive(optimizer, params)
    assert all(optimizer.state[p]["step"] == 40 for p in params)


def test_the_optimizer_inside_is_stepped_with_its_hooks(wrap):
    params, calls = parameters(), []
    inner = adam(params)
    inner.register_step_post_hook(lambda *_: calls.append("inside"))
    optimizer = wrap(inner)
    optimizer.register_step_post_hook(lambda *_: calls.append("outside"))
    drive(optimizer, params, 2)
    assert calls == ["inside", "outside"] * 2


def test_a_group_has_settings_of_its_own():
    one, other = parameters()
    inner = torch.optim.SGD([{"params": [one], "cprop_beta": 0.5}, {"params": [other]}], 0.1)
    optimizer = CProp(inner)
    assert [group["cprop_beta"] for group in optimizer.param_groups] == [0.5, 0.999]
    inner.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
    assert optimizer.param_groups[2]["cprop_beta"] == 0.999


def test_a_step_that_a_scaler_skips_is_none():
    params = parameters()
    optimizer = Demon(CProp(torch.optim.SGD(params, 0.1, momentum=0.9)), 10)
    scaler = torch.amp.GradScaler("cpu")
    for factor in (1.0, float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale(factor * sum(p.square().sum() for p in params)).backward()
        scaler.step(optimizer)
        scaler.update()
    assert optimizer.param_groups[0]["demon_t"] == 2
    assert all(optimizer.state[p]["cprop_t"] == 2 for p in params)
    assert all(optimizer.state[p]["cprop_m"].isfinite().all() for p in params)


def test_the_states_of_narrow_parameters_are_wide_also_when_loaded():
    params = parameters(torch.bfloat16)
    optimizer = CProp(torch.optim.SGD(params, 0.1))
    drive(optimizer, params)
    again = CProp(torch.optim.SGD(params, 0.1))
    again.load_state_dict(optimizer.state_dict())
    assert all(again.state[p]["cprop_m"].dtype is torch.float32 for p in params)


def test_what_cannot_be_wrapped_is_refused_in_a_sentence(wrap):
    with pytest.raises(ValueError, match=r"must be a torch.optim.Optimizer, got list; make one and wrap it"):
        wrap([1])
    inner = adam(parameters())
    wrap(inner)
    with pytest.raises(ValueError, match=r"must not be in a \w+ yet, got one that is"):
        wrap(inner)


def test_a_rule_on_trial_is_not_tried_on_scaled_steps():
    class Unknown(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {"lr": 0.1, "momentum": 0.9})

        def step(self):
            pass

    assert reader_of(Unknown(parameters())) is not None
    assert reader_of(CProp(Unknown(parameters()))) is None
    assert reader_of(Demon(Unknown(parameters()), 10)) is not None


def test_what_has_no_stepsize_has_none_in_a_wrapper_and_the_same_reason():
    rprop = torch.optim.Rprop(parameters())
    assert reader_of(CProp(rprop)) is None
    assert "only signs count" in why_none(CProp(torch.optim.Rprop(parameters())))
