"""A task small enough to be trained by hand."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqnorm.models import CNN


class Rows:
    """Clients with rows of random DNA; a batch is (sequences, labels)."""

    metrics = ("accuracy",)
    measured_at_once = 16
    digest = ""

    def __init__(self, rows: dict[str, int], poison: str = "", dropout: float = 0.0) -> None:
        self.rows, self.poison, self.dropout = rows, poison, dropout
        self.clients = tuple(sorted(rows))

    def holdings(self, folder: Path) -> pd.DataFrame:
        return pd.DataFrame()

    def build(self, norm: str, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        sizes = {"channels": 4, "kernel_size": 5, "inner_kernel_size": 3}
        return CNN(norm=norm, dropout=self.dropout, **sizes)

    def examples(self, client: str, part: str) -> int:
        return self.rows[client]

    def batches(
        self, client: str, part: str, batch_size: int, order: tuple[int, int] | None
    ) -> Iterator[Any]:
        number = self.rows[client]
        g = torch.Generator().manual_seed(sum(map(ord, client)))
        x = F.one_hot(torch.randint(4, (number, 40), generator=g), 4).mT.float()
        y = (torch.rand(number, generator=g) > 0.5).float()
        if client == self.poison:
            y[number // 2] = math.nan
        places = np.arange(number)
        if order is not None:
            np.random.default_rng(order).shuffle(places)
        for first in range(0, number, batch_size):
            chosen = torch.from_numpy(places[first : first + batch_size])
            yield x[chosen], y[chosen]

    def inputs(self, batch: Any) -> Tensor:
        x: Tensor = batch[0]
        return x

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(batch[0])[:, 0], batch[1])

    def evaluate(self, model: nn.Module, client: str, part: str) -> dict[str, float]:
        model.eval()
        with torch.no_grad():
            found = [
                model(self.inputs(batch))
                for batch in self.batches(client, part, self.measured_at_once, None)
            ]
        return self.measures(client, part, torch.cat(found) if found else torch.empty(0))

    def measures(self, client: str, part: str, scores: Tensor) -> dict[str, float]:
        scores = scores.reshape(-1)
        its = {f"row {row}": float(value) for row, value in enumerate(scores)}
        return {"examples": len(scores), **its}
