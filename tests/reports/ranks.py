"""One process of a training by Lightning or the Trainer of Transformers on several: `python ranks.py CASE FOLDER`.

Its place among them stands in the environment, as `torchrun` puts it there. The training is that of the test files,
once with and once without the callback, and the parameters are compared. The record is FOLDER/run.
"""

import sys
from pathlib import Path

import torch
from torch import distributed

import stepscope
from shared import tiny_gpt2

STEPS = 12


def module(sharded):
    """Return a LightningModule, whose parameters `fully_shard` divides up if asked to."""
    import lightning.pytorch as pl

    class Net(pl.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layers = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1))

        def configure_model(self):
            if sharded and not hasattr(self, "divided"):
                from torch.distributed.fsdp import fully_shard

                self.divided = fully_shard(self.layers, mesh=self.device_mesh["data_parallel"])

        def training_step(self, batch, _):
            return (self.layers(batch) - batch.sum(1, keepdim=True)).square().mean()

        def configure_optimizers(self):
            return torch.optim.Adam(self.layers.parameters(), lr=1e-2)

    return Net()


def fit(folder, callback, sharded, epochs=1, resume=None):
    """Train with Lightning; return the parameters that this process holds, and the trainer."""
    import lightning.pytorch as pl
    from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

    divided = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    strategy = divided if sharded else DDPStrategy(process_group_backend="gloo")
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        callbacks=[callback] if callback else [],
        logger=False,
        default_root_dir=folder,
        **quiet,
    )
    net, batches = module(sharded), torch.randn(2 * STEPS, 8, generator=torch.Generator().manual_seed(1))
    trainer.fit(net, torch.utils.data.DataLoader(batches, batch_size=1), ckpt_path=resume)
    return [getattr(p.data, "_local_tensor", p.data).clone() for p in net.layers.parameters()], trainer


def lightning(folder, sharded):
    callback = stepscope.StepsizeMonitor(folder / "run", strict=True)
    watched, trainer = fit(folder, callback, sharded)
    trainer.save_checkpoint(folder / "last.ckpt")
    again = stepscope.StepsizeMonitor(folder / "again", strict=True)
    fit(folder, again, sharded, epochs=2, resume=folder / "last.ckpt")
    tell(*callback.monitors, *again.monitors)
    return watched, fit(folder, None, sharded)[0]


def train(folder, callback, sharded, resume=None):
    """Train with the Trainer of Transformers; return the parameters.

    On a CPU it does not shard a model, but it takes an optimizer that shares out the tensors.
    """
    import transformers as hf
    from torch.distributed.optim import ZeroRedundancyOptimizer

    class Dealt(ZeroRedundancyOptimizer):
        def state_dict(self):  # which Accelerate asks for before there is any
            return super().state_dict() if self._all_state_dicts else torch.optim.Optimizer.state_dict(self)

    class Together(hf.TrainerCallback):
        def on_step_end(self, args, state, control, *, optimizer, **_):
            optimizer.optimizer.consolidate_state_dict()

    model, tokens = tiny_gpt2()
    arguments = hf.TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        logging_steps=2,
        save_strategy="steps",
        save_steps=STEPS // 2,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        ddp_backend="gloo",
    )
    assert arguments.device.type == "cpu"  # to ask makes the process group
    optimizer = Dealt(model.parameters(), torch.optim.AdamW, lr=1e-2, weight_decay=0.0) if sharded else None
    trainer = hf.Trainer(
        model=model,
        args=arguments,
        train_dataset=[{"input_ids": row, "labels": row} for row in tokens],
        callbacks=[each for each in (Together() if sharded else None, callback) if each],
        optimizers=(optimizer, None),
    )
    trainer.train(resume_from_checkpoint=resume)
    return [param.detach().clone() for param in model.parameters()]


def transformers(folder, sharded):
    written = []
    callback, again = (
        stepscope.StepsizeCallback(folder / name, write=lambda *_: written.append(1), strict=True)
        for name in ("run", "again")
    )
    watched = train(folder, callback, sharded)
    train(folder, again, sharded, resume=str(folder / f"checkpoint-{STEPS // 2}"))
    tell(*(one.monitor for one in (callback, again) if one.monitor))
    assert bool(written) is (distributed.get_rank() == 0)
    return watched, train(folder, None, sharded)


def tell(*monitors):
    print("steps:", *(monitor.step for monitor in monitors))


PACKAGES = {"lightning": lightning, "transformers": transformers}


def main(case, folder):
    torch.set_num_threads(1)
    package, _, kind = case.partition("-")
    watched, plain = PACKAGES[package](Path(folder), kind == "sharded")
    assert all(torch.equal(a, b) for a, b in zip(watched, plain, strict=True)), "the callback changed the run"
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
