"""What limits a transformer that learns to write Python? It reads the standard library's own source, byte by byte.

    python examples/03_transformer.py [--steps 5000]

It runs on a GPU if there is one, in float16 with a gradient scaler. Look at what limits the run, and at the findings
about single tensors, which need fewer steps than a certificate; in the report, at the table with a row for each.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

from stepscope import Monitor

CONTEXT, BATCH, WIDTH = 32, 16, 64


class Writer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, nhead=4, dim_feedforward=4 * WIDTH, batch_first=True)
        self.embed, self.place = nn.Embedding(256, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.layers, self.head = nn.TransformerEncoder(layer, num_layers=2), nn.Linear(WIDTH, 256)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        future = torch.ones(CONTEXT, CONTEXT, dtype=torch.bool, device=text.device).triu(1)
        return self.head(self.layers(self.embed(text) + self.place.weight, future))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=400)
    steps = parser.parse_args().steps
    device, cuda = ("cuda", True) if torch.cuda.is_available() else ("cpu", False)
    torch.manual_seed(0)
    source = b"".join(path.read_bytes() for path in sorted(Path(argparse.__file__).parent.glob("*.py")))
    text = torch.frombuffer(bytearray(source), dtype=torch.uint8).to(device)
    model = Writer().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95))
    scaler = torch.amp.GradScaler(device, enabled=cuda)
    with Monitor(optimizer, model=model, on_alert=print) as monitor:
        for step in range(1, steps + 1):
            rows = text.unfold(0, CONTEXT + 1, 1)[torch.randint(len(text) - CONTEXT, (BATCH,), device=device)].long()
            with torch.autocast(device, torch.float16, enabled=cuda):
                loss = nn.functional.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            monitor.log(loss=loss)
            if step % 100 == 0:
                print(f"step {step}: loss {loss.item():.3f}")
    print(f"\n{monitor.diagnose()}\n\n{monitor.report('runs/transformer.html')}")


if __name__ == "__main__":
    main()
