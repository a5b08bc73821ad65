"""What every test shares."""

import os

import torch
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("untimed")
torch.set_num_threads(1)  # several test processes share the cores, and waiting threads spin
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels run in Python; Triton asks when it is imported
