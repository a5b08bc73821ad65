"""The monitor in a loop under Accelerate: its wrapper, its checkpoints, its trackers."""

import pytest
import torch

from stepscope import Monitor

STEPS = 8


@pytest.fixture
def make_accelerator():
    import accelerate

    def make(folder, **settings):
        for singleton in (accelerate.state.AcceleratorState, accelerate.state.GradientState):
            singleton._reset_state()  # a new process would have new ones
        return accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2, project_dir=folder, **settings)

    return make


def train(accelerator, watch=True, resume=None, save=None):
    """Take `STEPS` steps on the same batches, or the last half of them from a checkpoint."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1))
    model, optimizer = accelerator.prepare(model, torch.optim.Adam(model.parameters(), lr=1e-2))
    monitor = Monitor(optimizer, model=model) if watch else None
    if monitor:
        accelerator.register_for_checkpointing(monitor)
    if resume:
        accelerator.load_state(resume)
    generator = torch.Generator().manual_seed(1)
    for batch in range(2 * STEPS):
        x = torch.randn(4, 8, generator=generator)
        if resume and batch < STEPS:
            continue
        with accelerator.accumulate(model):
            loss = 100 * (model(x) - x.sum(1, keepdim=True)).square().mean()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
        if monitor and accelerator.sync_gradients:
            monitor.log(loss=loss)
            accelerator.log(monitor.scalars(), step=monitor.step)
        if save and batch == STEPS - 1:
            accelerator.save_state(save)
    return model, optimizer, monitor


def test_a_loop_is_watched_and_left_as_it_is(make_accelerator, tmp_path):
    watched, optimizer, monitor = train(make_accelerator(tmp_path))
    plain, _, _ = train(make_accelerator(tmp_path), watch=False)
    for here, there in zip(watched.parameters(), plain.parameters(), strict=True):
        assert torch.equal(here, there)
    assert monitor.optimizer is optimizer.optimizer
    assert monitor.step == STEPS
    assert monitor.trace.total("g2")[-1] <= STEPS * 0.5**2 * 1.001  # the gradients as they were clipped
    root = (optimizer.state[watched[0].weight]["exp_avg_sq"].double() / (1 - 0.999**STEPS)).sqrt()
    e = (1e-2 / (1 - 0.9**STEPS) / (root + 1e-8)).flatten().sort().values
    assert monitor.scalars()["stepsize/0.weight/p50"] == pytest.approx(float(e[round((len(e) - 1) / 2)]), rel=1e-6)


def test_a_checkpoint_continues_the_sums(make_accelerator, tmp_path):
    _, _, whole = train(make_accelerator(tmp_path), save=tmp_path / "saved")
    _, _, resumed = train(make_accelerator(tmp_path), resume=tmp_path / "saved")
    assert resumed.step == STEPS
    for name in ("a", "b", "c_plus"):
        assert resumed.trace.total(name)[-1] == whole.trace.total(name)[-1]


def test_its_trackers_take_the_scalars(make_accelerator, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accelerator = make_accelerator(tmp_path, log_with="tensorboard")
    accelerator.init_trackers("curves")
    _, _, monitor = train(accelerator)
    accelerator.end_training()
    board = EventAccumulator(str(tmp_path / "curves")).Reload()
    for name, value in monitor.scalars().items():
        last = board.Scalars(name)[-1]
        assert (last.step, last.value) == (STEPS, pytest.approx(value, rel=1e-6))
