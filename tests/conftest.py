"""One thread for every test: bits then depend on no machine's number of cores."""

import torch

torch.set_num_threads(1)
