"""One process of a small run on several: `python ranks.py STORE RANK WORLD FOLDER CASE …`, cases one after another.

Every case trains the same network on the same data, once watched and once not, and compares the parameters. The record
of all coordinates is FOLDER/CASE/all, that of a sample FOLDER/CASE/sample.
"""

import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from stepscope import Monitor
from stepscope.diagnostics.writer import Writer

STEPS = 100
BATCH = 8
HALFWAY = 50
SAMPLE = 12


class Network(torch.nn.Module):
    """Tensors that two and four processes share unevenly, and one that never has a gradient."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(6, 10)
        self.spare = torch.nn.Parameter(torch.ones(20))
        self.second = torch.nn.Linear(10, 3)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def network():
    torch.manual_seed(1)
    return Network().double()


def batches():
    generator = torch.Generator().manual_seed(2)
    for _ in range(STEPS):
        x = torch.randn(BATCH, 6, generator=generator, dtype=torch.float64)
        yield x, torch.sin(x[:, :3]) + 0.1 * torch.randn(BATCH, 3, generator=generator, dtype=torch.float64)


def adam(params):
    return torch.optim.AdamW(params, lr=0.01, betas=(0.9, 0.95))


def alone():
    model = network()
    return model, model, adam(model.parameters()), slice(None)


def mine():
    share = BATCH // dist.get_world_size()
    return slice(dist.get_rank() * share, (dist.get_rank() + 1) * share)


def ddp():
    model = network()
    wrapped = torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
    return wrapped, wrapped, adam(model.parameters()), mine()


def zero():
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = network()
    wrapped = torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=0.01, betas=(0.9, 0.95))
    return wrapped, model, optimizer, mine()


def fsdp2():
    from torch.distributed.fsdp import fully_shard

    model, mesh = network(), init_device_mesh("cpu", (dist.get_world_size(),))
    fully_shard(model.first, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model, model, adam(model.parameters()), mine()


def hybrid():
    """Two copies of two shards."""
    from torch.distributed.fsdp import fully_shard

    model, mesh = network(), init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("copy", "shard"))
    fully_shard(model, mesh=mesh)
    return model, model, adam(model.parameters()), mine()


def fsdp1():
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = network()
    model = FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))
    return model, model, adam(model.parameters()), mine()


def tensor_parallel():
    model = parallel(network(), init_device_mesh("cpu", (dist.get_world_size(),)))
    return model, model, adam(model.parameters()), slice(None)


def parallel(model, mesh):
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    return parallelize_module(model, mesh, {"first": ColwiseParallel(), "second": RowwiseParallel()})


def both():
    """`fully_shard` over two groups of processes, within which a layer is tensor parallel."""
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("data", "tensor"))
    model = parallel(network(), mesh["tensor"])
    fully_shard(model, mesh=mesh["data"])
    part = dist.get_rank() // (dist.get_world_size() // 2)
    return model, model, adam(model.parameters()), slice(part * BATCH // 2, (part + 1) * BATCH // 2)


CASES = {f.__name__: f for f in (alone, ddp, zero, fsdp2, hybrid, fsdp1, tensor_parallel, both)}


def train(case, folder=None):
    """Return the parameters that this process holds in the end; with a folder, of a run that is watched."""
    case, _, how = case.partition("+")
    model, named, optimizer, rows = CASES[case]()
    monitors = watch(optimizer, named, folder) if folder else []
    try:
        for step, (x, y) in enumerate(batches(), 1):
            if step == HALFWAY and how == "resumed" and folder:
                monitors = resumed(monitors, optimizer, named, folder)
            loss = torch.nn.functional.mse_loss(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            for monitor in monitors:
                monitor.log(loss=loss)
            if how == "dying":
                die(monitors, step)
    except RuntimeError:
        if how != "dying":
            raise
    for monitor in monitors:
        assert how or monitor.step == STEPS
        monitor.close()
        assert monitor.diagnose().verdict
        assert str(monitor.summary())
        assert monitor.scalars()
    params = [param for group in optimizer.param_groups for param in group["params"]]
    return [getattr(param, "_local_tensor", param).detach().clone() for param in params]


def watch(optimizer, model, folder):
    """Return a monitor of all coordinates, one of a sample, and one without a directory."""
    settings = ("all", folder / "all"), (SAMPLE, folder / "sample"), (SAMPLE, None)
    return [Monitor(optimizer, place, model=model, coordinates=c, strict=True) for c, place in settings]


def resumed(monitors, optimizer, model, folder):
    """Return new monitors that go on from the checkpoints of the old ones."""
    states = [monitor.state_dict() for monitor in monitors]
    for monitor in monitors:
        monitor.close()
    monitors = watch(optimizer, model, folder)
    for monitor, state in zip(monitors, states, strict=True):
        monitor.load_state_dict(state)
    return monitors


def die(monitors, step):
    """Commit the records, and some steps later let the last process vanish."""
    if step == HALFWAY:
        for monitor in monitors:
            monitor._recorder.commit()
            if isinstance(monitor._recorder.log, Writer):
                monitor._recorder.log.settle()
    if step == HALFWAY + 20 and dist.get_rank() == dist.get_world_size() - 1:
        os._exit(0)


def main(store, rank, world, folder, *cases):
    torch.set_num_threads(1)
    rank, world, folder = int(rank), int(world), Path(folder)
    if world:
        dist.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=world, timeout=timedelta(seconds=60)
        )
    for case in cases:
        watched = train(case, folder / case.replace("+again", "+dying"))
        if case.endswith("+dying"):  # there is nobody left to part from
            os._exit(0)
        if not case.endswith("+again"):
            both = zip(watched, train(case), strict=True)
            assert all(torch.equal(a, b) for a, b in both), f"{case}: the monitor changed the run"
    if world:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
