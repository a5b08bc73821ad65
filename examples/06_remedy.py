"""Does the remedy that a report names help? Digits of which a fifth has a wrong label, anew each time one is seen.

    python examples/06_remedy.py        (needs scikit-learn)

The first diagnosis says `neighbourhood` and shows two lines that put a remedy in place. The second run is the same with
these two lines in it, and a third that calls the scheduler, as the remedy's reason says. Look at what no diagnosis has
measured: the loss in the mean over all digits and all draws of their labels.
"""

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from stepscope import Diagnosis, Monitor

WRONG, EPOCHS, BATCH = 0.2, 60, 32


def train(mended: bool) -> tuple[Diagnosis, float]:
    """Return the diagnosis of a run, and its mean loss at the end."""
    torch.manual_seed(0)
    digits, classes = load_digits(return_X_y=True)
    pixels, labels = torch.tensor(digits / 16, dtype=torch.float32), torch.tensor(classes)
    model = torch.nn.Linear(64, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    if mended:
        from stepscope.remedies import AutoDrop

        scheduler = AutoDrop(optimizer)
    with Monitor(optimizer, model=model) as monitor:
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(pixels)).split(BATCH):
                wrong = torch.rand(len(rows)) < WRONG
                seen = torch.where(wrong, torch.randint(10, (len(rows),)), labels[rows])
                loss = cross_entropy(model(pixels[rows]), seen)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                monitor.log(loss=loss)
            if mended:
                scheduler.step()
    monitor.report(f"runs/remedy/{'after' if mended else 'before'}.html")
    # A label that is drawn anew with probability 0.2 costs in the mean what a smoothed one costs.
    return monitor.diagnose(), cross_entropy(model(pixels), labels, label_smoothing=WRONG).item()


def main() -> None:
    (before, loss), (after, less) = train(mended=False), train(mended=True)
    print(before)
    print(f"\nbefore: {before.verdict}, mean loss {loss:.4f}")
    print(f"after:  {after.verdict}, mean loss {less:.4f}")


if __name__ == "__main__":
    main()
