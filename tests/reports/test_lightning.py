"""StepsizeMonitor in real trainings of Lightning, under both names of its package."""

import csv
import importlib
import sys

import numpy as np
import pytest
import torch

import stepscope
from stepscope import Trace

# Lightning 2.6 asks torch for the leaves of a tree in a way that torch 2.13 is giving up.
pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")

STEPS = 12


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def package(request):
    return importlib.import_module(request.param)


def module(package, fails_at=None, optimizers=1):
    class Net(package.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layers = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1))
            self.losses = []
            self.automatic_optimization = optimizers == 1

        def training_step(self, batch, batch_idx):
            if batch_idx == fails_at:
                raise ArithmeticError("the loop broke")
            loss = 100 * (self.layers(batch) - batch.sum(1, keepdim=True)).square().mean()
            self.losses.append(loss.item())
            if not self.automatic_optimization:
                self.manual_backward(loss)
                for optimizer in self.optimizers():
                    optimizer.step()
                    optimizer.zero_grad()
            return loss

        def configure_optimizers(self):
            chosen = [self.layers[0], self.layers[2]] if optimizers == 2 else [self.layers]
            return [torch.optim.Adam(part.parameters(), lr=1e-2) for part in chosen]

    return Net()


def fit(package, folder, callback=None, *, net=None, epochs=2, resume=None, **settings):
    """Train on the same 12 batches in each epoch, and return the net and the trainer."""
    net = net or module(package)
    batches = torch.randn(2 * STEPS, 4, 8, generator=torch.Generator().manual_seed(1))
    trainer = package.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=importlib.import_module(f"{package.__name__}.loggers").CSVLogger(folder, name="", version=""),
        log_every_n_steps=STEPS // 2,
        callbacks=[callback] if callback else [],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **settings,
    )
    trainer.fit(net, torch.utils.data.DataLoader(batches, batch_size=None), ckpt_path=resume)
    return net, trainer


def median_stepsize(optimizer, parameter):
    """Adam's formula on the optimizer's final state."""
    group, state = optimizer.param_groups[0], optimizer.state[parameter]
    (beta1, beta2), t = group["betas"], float(state["step"])
    v = state["exp_avg_sq"].double().flatten()
    e = group["lr"] / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + group["eps"])
    return float(np.sort(e.numpy())[round((len(e) - 1) / 2)])


def test_a_training_is_watched_logged_and_left_as_it_is(package, tmp_path):
    callback = stepscope.StepsizeMonitor(tmp_path / "run")
    settings = {"gradient_clip_val": 0.5, "accumulate_grad_batches": 2}
    watched, trainer = fit(package, tmp_path / "watched", callback, **settings)
    plain, _ = fit(package, tmp_path / "plain", **settings)
    for here, there in zip(watched.parameters(), plain.parameters(), strict=True):
        assert torch.equal(here, there)

    trace = Trace.load(tmp_path / "run")
    assert trace.steps[-1] == 2 * STEPS
    assert trace.events[-1].message == "closed by its owner"
    assert trace.tensors[0].name == "layers.0.weight"
    loss = trace.scalars["loss"]
    assert (loss.count[-1], loss.total[-1]) == (4 * STEPS, pytest.approx(sum(watched.losses), rel=1e-6))
    assert trace.total("g2")[-1] <= 2 * STEPS * 0.5**2 * 1.001  # the gradients as they were clipped

    with (tmp_path / "watched" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) + 1 for row in rows] == [6, 12, 18, 24]
    logged = {key: float(value) for key, value in rows[-1].items() if key != "step" and value}
    assert logged == pytest.approx(callback.monitor.scalars())
    assert logged["stepsize/layers.0.weight/p50"] == pytest.approx(
        median_stepsize(trainer.optimizers[0], watched.layers[0].weight), rel=1e-5
    )


def test_a_checkpoint_continues_the_sums(package, tmp_path):
    whole, broken, resumed = (stepscope.StepsizeMonitor(what_if=()) for _ in range(3))
    fit(package, tmp_path / "whole", whole)
    _, trainer = fit(package, tmp_path / "first", broken, epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    fit(package, tmp_path / "second", resumed, resume=tmp_path / "last.ckpt")
    assert resumed.monitor.step == 4 * STEPS
    for name in ("a", "b", "c_plus"):
        assert resumed.monitor.trace.total(name)[-1] == whole.monitor.trace.total(name)[-1]
    assert resumed.monitor.trace.scalars["loss"].count[-1] == 4 * STEPS


def test_an_error_closes_the_record_and_is_told_in_it(package, tmp_path):
    callback = stepscope.StepsizeMonitor(tmp_path / "run")
    with pytest.raises(RuntimeError, match=r"call `trainer.fit` first"):
        callback.monitor  # noqa: B018
    with pytest.raises(ArithmeticError, match="the loop broke"):
        fit(package, tmp_path, callback, net=module(package, fails_at=5))
    assert callback.monitor.closed
    trace = Trace.load(tmp_path / "run")
    assert (trace.steps[-1], trace.events[-1].message) == (5, "after an error: ArithmeticError: the loop broke")


def test_several_optimizers_have_a_monitor_each(package, tmp_path):
    callback = stepscope.StepsizeMonitor(tmp_path / "run")
    fit(package, tmp_path / "logs", callback, net=module(package, optimizers=2))
    assert [monitor.directory.name for monitor in callback.monitors] == ["optimizer0", "optimizer1"]
    assert Trace.load(tmp_path / "run" / "optimizer1").tensors[0].name == "layers.2.weight"
    header = (tmp_path / "logs" / "metrics.csv").read_text().splitlines()[0]
    assert "optimizer1/stepsize/layers.2.weight/p50" in header


def test_a_logger_that_fails_and_a_monitor_that_was_closed_do_not_reach_the_training(package, caplog):
    class Broken(importlib.import_module(f"{package.__name__}.loggers.logger").DummyLogger):
        def log_metrics(self, *_, **__):
            raise OSError("the disk is full")

    class Closing(package.Callback):
        def on_train_batch_start(self, trainer, net, batch, batch_idx):
            if batch_idx == 5:
                callback.monitor.close()

    callback, net = stepscope.StepsizeMonitor(), module(package)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = package.Trainer(
        max_epochs=1, accelerator="cpu", logger=Broken(), log_every_n_steps=2, callbacks=[callback, Closing()], **quiet
    )
    trainer.fit(net, torch.utils.data.DataLoader(torch.randn(6, 4, 8), batch_size=None))
    assert (len(net.losses), callback.monitor.step) == (6, 5)
    (told,) = [record.message for record in caplog.records if "could not" in record.message]
    assert told == (
        "stepscope could not log its scalars and tries no more; the training goes on: OSError: the disk is full"
    )


def test_either_package_will_do_and_one_has_to_be_there(package, monkeypatch):
    from stepscope.reports.lightning_callback import PACKAGES, callback_class

    for other in set(PACKAGES) - {package.__name__}:
        monkeypatch.setitem(sys.modules, other, None)
    assert callback_class() is package.Callback
    monkeypatch.setitem(sys.modules, package.__name__, None)
    with pytest.raises(ImportError, match=r"run: pip install 'stepscope\[lightning\]'"):
        callback_class()
