"""What every test shares."""

import torch

torch.set_num_threads(1)  # several test processes share the cores, and waiting threads spin
