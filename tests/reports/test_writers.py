"""What the writers write, read back from the files of TensorBoard, Weights & Biases and MLflow."""

import json
import re
import struct
import subprocess
import sys

import pytest

from stepscope.reports.writers import to_mlflow, to_tensorboard, to_wandb

FIRST = {"stepsize/0.weight/p50": 0.25, "lr/0": 1e-3, "total/a": float("inf")}
LAST = {"stepsize/0.weight/p50": 0.125, "lr/0": 5e-4, "total/a": 3e9}


def test_tensorboard_by_folder_and_by_an_open_writer(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path / "theirs") as board:
        for write in (to_tensorboard(tmp_path / "ours"), to_tensorboard(board)):
            write(FIRST, 100)
            write(LAST, 200)
        for folder in ("ours", "theirs"):  # while the writers are still open
            read = EventAccumulator(str(tmp_path / folder)).Reload()
            assert set(read.Tags()["scalars"]) == set(FIRST)
            for name, value in FIRST.items():
                events = [(event.step, event.value) for event in read.Scalars(name)]
                assert events == [(100, pytest.approx(value)), (200, pytest.approx(LAST[name]))]


@pytest.mark.slow
def test_wandb_offline_on_an_axis_of_its_own(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    write = to_wandb()
    with pytest.raises(RuntimeError, match=r"got none; call `wandb.init`"):
        write(FIRST, 100)
    with wandb.init(mode="offline", dir=tmp_path, project="stepscope") as run:
        write(FIRST, 100)
        run.log({"loss": 1.0})
        write(LAST, 200)
    wandb.teardown()  # ends the process that writes the file, which may lag behind
    history, metrics = read_wandb(next(tmp_path.glob("wandb/offline-run-*/*.wandb")))
    ours = [row for row in history if "stepscope/step" in row]
    for row, (scalars, step) in zip(ours, [(FIRST, 100), (LAST, 200)], strict=True):
        assert {name: float(row[name]) for name in (*FIRST, "stepscope/step")} == {**scalars, "stepscope/step": step}
    assert any(row.get("loss") == 1.0 for row in history)
    families = dict.fromkeys(["stepsize/*", "rms/*", "update_ratio/*", "lr/*", "total/*"], "stepscope/step")
    assert families.items() <= metrics.items()


def records(data):
    """Return the records of a log in LevelDB's format: chunks in blocks of 32 KiB, behind a head of 7 bytes."""
    at, record = 7, b""
    while at + 7 <= len(data):
        if (left := -at % 32768) < 7 and left:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last of several chunks
            yield record
            record = b""


def read_wandb(path):
    """Return the rows that a run logged and the axes it defined, from the file that an offline run leaves."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = [Record.FromString(data) for data in records(path.read_bytes())]
    rows = [record.history.item for record in found if record.HasField("history")]
    history = [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row} for row in rows]
    return history, {
        record.metric.glob_name: record.metric.step_metric for record in found if record.HasField("metric")
    }


# MLflow asks its database for a way of loading that SQLAlchemy 2.1 is giving up.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
def test_mlflow_in_a_local_database_and_names_that_it_does_not_take(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    try:
        many = {f"rms/layer{layer} (group 1)": float(layer) for layer in range(1500)}
        with mlflow.start_run() as run:
            to_mlflow()(LAST | many, 100)
        to_mlflow(run.info.run_id)(FIRST, 200)
        client = mlflow.MlflowClient()
        history = client.get_metric_history(run.info.run_id, "stepsize/0.weight/p50")
        assert [(metric.step, metric.value) for metric in history] == [(100, 0.125), (200, 0.25)]
        newest = client.get_run(run.info.run_id).data.metrics
        assert newest["rms/layer1499 _group 1_"] == 1499
        assert len(newest) == 1503
    finally:
        mlflow.set_tracking_uri(before)


SENTENCE = "this part of stepscope needs the package {0}, .* run: pip install 'stepscope\\[{0}\\]'"


@pytest.mark.parametrize(
    ("call", "module", "extra"),
    [
        (lambda: to_tensorboard("curves"), "torch.utils.tensorboard", "tensorboard"),
        (to_wandb, "wandb", "wandb"),
        (to_mlflow, "mlflow", "mlflow"),
    ],
)
def test_a_package_that_is_missing_is_asked_for_in_one_sentence(call, module, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=SENTENCE.format(extra)):
        call()


def test_without_the_packages_all_else_is_there_and_the_callbacks_ask_for_theirs():
    code = """
import sys
missing = "accelerate", "lightning", "mlflow", "pytorch_lightning", "tensorboard", "transformers", "wandb"
sys.modules.update(dict.fromkeys(missing))
from stepscope import *
import stepscope, stepscope.reports.cli, stepscope.reports.page, stepscope.reports.writers
for name in ("StepsizeMonitor", "StepsizeCallback"):
    try:
        getattr(stepscope, name)
    except ImportError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for line, extra in zip(done.stdout.splitlines(), ("lightning", "transformers"), strict=True):
        assert re.fullmatch(SENTENCE.format(extra), line)
