"""What does stepscope say of a run? A small model learns from noisy data; the last lines ask for the verdict.

    python examples/01_first_monitor.py

It prints the diagnosis: the verdict first, then each check with its numbers, then what was found and what to try. Open
runs/first_monitor.html in a browser; it says the same with figures.
"""

import torch

from stepscope import Monitor


def main() -> None:
    torch.manual_seed(0)
    truth = torch.randn(10)
    model = torch.nn.Linear(10, 1)
    # A decision takes about 57/(1-β2) steps: 1140 with this β2, 57 000 with Adam's default of 0.999.
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.9, 0.95))

    with Monitor(optimizer, model=model) as monitor:  # the one line
        for _ in range(3000):
            x = torch.randn(32, 10)
            y = x @ truth + torch.randn(32)
            loss = torch.nn.functional.mse_loss(model(x).squeeze(1), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.log(loss=loss)  # a curve in the report

    print(monitor.diagnose())
    print(monitor.report("runs/first_monitor.html"))


if __name__ == "__main__":
    main()
