"""Which of two optimizers does better, from where on, and how sure is that? Adam and SGD learn digits from one seed.

    python examples/07_comparison.py        (needs scikit-learn)

It prints the verdicts side by side, what differs between the runs, and the step from which each quantity is apart.
runs/comparison.html shows the curves and all of both runs. One run of each cannot tell an optimizer from its luck: only
differences that are larger than those of seeds are called apart.
"""

from collections.abc import Callable, Iterable

import torch
from sklearn.datasets import load_digits
from torch import nn

from stepscope import Monitor, Trace, compare

EPOCHS = 40


def train(make: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]) -> Trace:
    """Return the record of a run: the same network, the same batches, another optimizer."""
    torch.manual_seed(0)
    digits, classes = load_digits(return_X_y=True)
    pixels, labels = torch.tensor(digits / 16, dtype=torch.float32), torch.tensor(classes)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
    optimizer = make(model.parameters())
    with Monitor(optimizer, model=model) as monitor:
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(pixels)).split(32):
                loss = nn.functional.cross_entropy(model(pixels[rows]), labels[rows], label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                monitor.log(loss=loss)
    return monitor.trace


def main() -> None:
    found = compare(
        {
            "adam": train(lambda params: torch.optim.Adam(params, lr=3e-3, betas=(0.9, 0.95))),
            "sgd": train(lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9)),
        }
    )
    print(found)
    print(found.report("runs/comparison.html"))


if __name__ == "__main__":
    main()
