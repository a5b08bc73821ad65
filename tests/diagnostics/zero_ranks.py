"""One process of trainings by DeepSpeed: `python zero_ranks.py STORE RANK WORLD FOLDER STAGE …`, one after another.

Every stage trains the same network on the same data, once watched and once not, and compares the parameters. The record
is FOLDER/STAGE; `plain` is the training without DeepSpeed, `small` stage 3 with several partitions to a group.
"""

import os
import sys
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import torch
from ranks import BATCH, STEPS, adam, batches, mine, network

from stepscope import Monitor

ZERO = {"0": {"stage": 0}, "1": {"stage": 1}, "2": {"stage": 2}, "3": {"stage": 3}}
ZERO["small"] = {"stage": 3, "sub_group_size": 10}


def prepared(stage, world):
    """Return what computes the loss, its parameters, what takes the step, what is watched, and the rows of a batch."""
    model = network().float()
    groups = [{"params": [*model.first.parameters()], "weight_decay": 0.1}]
    groups += [{"params": [model.spare, *model.second.parameters()], "lr": 0.005}]
    optimizer = adam(groups)
    if stage == "plain":
        return model, model, optimizer, optimizer, slice(None)
    import deepspeed

    config = {
        "train_micro_batch_size_per_gpu": BATCH // world,
        "gradient_clipping": 0.5,
        "zero_optimization": ZERO[stage],
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    engine, optimizer, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    return engine, model, engine, optimizer, mine()


def train(stage, world, folder=None):
    """Return the parameters of the model in the end; with a folder, of a run that is watched."""
    forward, model, taker, optimizer, rows = prepared(stage, world)
    monitor = folder and Monitor(optimizer, folder, model=model, coordinates="all", strict=True)
    for x, y in batches():
        loss = torch.nn.functional.mse_loss(forward(x[rows].float()), y[rows].float())
        if taker is optimizer:
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        else:
            taker.backward(loss)
        taker.step()
        if taker is optimizer:
            optimizer.zero_grad()
        if monitor:
            monitor.log(loss=loss)
    if monitor:
        monitor.close()
        assert monitor.step == STEPS
        assert monitor.diagnose().verdict
    with whole(model, stage):  # a rank has padding as well, in which stage 3 leaves whatever there is in memory
        return [param.detach().clone() for param in model.parameters()]


def whole(model, stage):
    """Return a context in which each parameter is there and not divided up."""
    if stage not in ZERO:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(model.parameters()))


def main(store, rank, world, folder, *stages):
    torch.set_num_threads(1)
    folder, alone = Path(folder), world == "0"
    if not alone:
        os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "DS_ACCELERATOR": "cpu"}
        limit = timedelta(seconds=60)
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{store}", rank=int(rank), world_size=int(world), timeout=limit
        )
    for stage in stages:
        watched, plain = train(stage, int(world), folder / stage), train(stage, int(world))
        both = zip(watched, plain, strict=True)
        assert all(torch.equal(a, b) for a, b in both), f"{stage}: the monitor changed the run"
    if not alone:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
