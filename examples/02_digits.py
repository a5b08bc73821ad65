"""How did a real training go, and what limits it? A network learns scikit-learn's digits, epoch by epoch.

    python examples/02_digits.py        (needs scikit-learn)

A line per ten epochs says how it goes; then the diagnosis says what the steps did. The run is kept in a folder of its
own, as a second run in the same one would continue the first. The last lines say how to come back to it.
"""

import time

import torch
from sklearn.datasets import load_digits
from torch import nn

from stepscope import Monitor, Trace

EPOCHS, BATCH, TESTED = 60, 32, 360


def main() -> None:
    folder = time.strftime("runs/digits-%Y%m%d-%H%M%S")
    torch.manual_seed(0)
    digits, classes = load_digits(return_X_y=True)
    pixels, labels = torch.tensor(digits / 16, dtype=torch.float32), torch.tensor(classes)
    test, train = torch.randperm(len(pixels)).split([TESTED, len(pixels) - TESTED])

    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)

    with Monitor(optimizer, folder, model=model) as monitor:
        for epoch in range(1, EPOCHS + 1):
            model.train()
            for rows in train[torch.randperm(len(train))].split(BATCH):
                loss = nn.functional.cross_entropy(model(pixels[rows]), labels[rows], label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                monitor.log(loss=loss)
            scheduler.step()
            model.eval()
            accuracy = (model(pixels[test]).argmax(1) == labels[test]).float().mean()
            monitor.log(accuracy=accuracy)
            if epoch % 10 == 0:
                print(f"epoch {epoch}: loss {loss.item():.3f}, accuracy {accuracy.item():.1%}")

    diagnosis = Trace.load(folder).diagnose()  # as another program would, at any later time
    print(f"\n{diagnosis}\n")
    print(f"judge it again: stepscope diagnose {folder}")
    print(f"the report: {monitor.report(f'{folder}.html')}")


if __name__ == "__main__":
    main()
