"""StepsizeCallback in real trainings of the Trainer of Transformers."""

import logging

import pytest
import torch

import stepscope
from shared import tiny_gpt2
from stepscope import Trace

STEPS = 8


def train(folder, callback=None, *, steps=STEPS, resume=None, fails_at=None, **settings):
    """Train a tiny language model on generated tokens, and return the Trainer."""
    import transformers

    class Failing(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if state.global_step == fails_at:
                raise ArithmeticError("the loop broke")

    model, tokens = tiny_gpt2()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        max_grad_norm=0.5,
        learning_rate=1e-2,
        logging_steps=2,
        save_strategy=settings.pop("save_strategy", "no"),
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        **settings,
    )
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=[{"input_ids": row, "labels": row} for row in tokens],
        callbacks=[callback for callback in (callback, Failing()) if callback],
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def median_stepsize(optimizer, parameter):
    """AdamW's formula on the optimizer's final state; the rate is the one of the last step."""
    group = next(group for group in optimizer.param_groups if any(p is parameter for p in group["params"]))
    state, (beta1, beta2) = optimizer.state[parameter], group["betas"]
    t, v = float(state["step"]), state["exp_avg_sq"].double().flatten()
    e = 1 / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + group["eps"])
    return float(e.sort().values[round((len(e) - 1) / 2)])


def test_a_training_is_watched_logged_and_left_as_it_is(tmp_path):
    written = {}
    callback = stepscope.StepsizeCallback(
        tmp_path / "run", write=lambda scalars, step: written.update({step: dict(scalars)})
    )
    watched, plain = train(tmp_path / "watched", callback), train(tmp_path / "plain")
    for here, there in zip(watched.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(here, there)

    trace = Trace.load(tmp_path / "run")
    assert trace.steps[-1] == STEPS
    assert trace.events[-1].message == "closed by its owner"
    losses = [entry["loss"] for entry in watched.state.log_history if "loss" in entry]
    assert trace.scalars["loss"].total[-1] == pytest.approx(sum(losses))
    assert trace.total("g2")[-1] <= STEPS * 0.5**2 * 1.001  # the gradients as they were clipped

    assert list(written) == [2, 4, 6, 8]
    name, last_rate = "transformer.h.0.attn.c_attn.weight", 1e-2 / STEPS  # the rate falls linearly, to 0 after the last
    assert written[STEPS]["lr/0"] == pytest.approx(last_rate)
    parameter = watched.model.get_parameter(name)
    expected = last_rate * median_stepsize(watched.optimizer.optimizer, parameter)
    assert written[STEPS][f"stepsize/{name}/p50"] == pytest.approx(expected, rel=1e-5)


def test_a_checkpoint_continues_the_sums(tmp_path, caplog):
    saving = {"save_strategy": "steps", "save_steps": 4}
    whole, resumed, elsewhere = (stepscope.StepsizeCallback() for _ in range(3))
    train(tmp_path / "whole", whole, **saving)
    train(tmp_path / "whole", resumed, resume=str(tmp_path / "whole" / "checkpoint-4"), **saving)
    assert resumed.monitor.step == STEPS
    for name in ("a", "b", "c_plus"):
        assert resumed.monitor.trace.total(name)[-1] == whole.monitor.trace.total(name)[-1]
    assert "stepscope" not in caplog.text

    (tmp_path / "whole" / "checkpoint-4" / "stepscope.pt").unlink()
    train(tmp_path / "whole", elsewhere, resume=str(tmp_path / "whole" / "checkpoint-4"))
    assert elsewhere.monitor.step == STEPS - 4
    assert "does not continue its sums exactly at step 4: there is no" in caplog.text


def test_an_error_closes_the_record_where_the_callback_is_a_context(tmp_path):
    callback = stepscope.StepsizeCallback(tmp_path / "run")
    with pytest.raises(ArithmeticError, match="the loop broke"), callback:
        train(tmp_path, callback, fails_at=3)
    assert callback.monitor.closed
    trace = Trace.load(tmp_path / "run")
    assert (trace.steps[-1], trace.events[-1].message) == (3, "after an error: ArithmeticError: the loop broke")


def test_a_writer_that_fails_does_not_reach_the_training(tmp_path, caplog):
    def write(scalars, step):
        raise OSError("the server is gone")

    callback = stepscope.StepsizeCallback(write=write)
    assert train(tmp_path, callback).state.global_step == STEPS
    (told,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "could not log its scalars and tries no more; the training goes on: OSError: the server" in told.message
