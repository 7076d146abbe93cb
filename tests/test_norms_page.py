import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import seqnorm
from seqnorm import leak_report

PAGE = (Path(seqnorm.__file__).parents[1] / "docs" / "norms.md").read_text()
ROWS = {
    cells[0].strip().strip("`"): [cell.strip() for cell in cells[1:]]
    for cells in (
        line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| `")
    )
    if len(cells) == 5
}
C = 4


class Queries(nn.Module):
    """QKNorm as a layer of one input: one head of queries."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = seqnorm.QKNorm(C)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        heads = x.transpose(1, 2)[:, None]
        y: torch.Tensor = self.norm(heads, heads)[0]
        return y[:, 0].transpose(1, 2)


class Styled(nn.Module):
    """AdaIN with a style that stays."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = seqnorm.AdaIN()

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        style = (torch.zeros(len(x), C, dtype=x.dtype), torch.ones(len(x), C, dtype=x.dtype))
        y: torch.Tensor = self.norm(x, statistics=style)
        return y


class FirstDomain(nn.Module):
    """DomainBatchNorm1d with everything in one domain."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = seqnorm.DomainBatchNorm1d(C, 2)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        y: torch.Tensor = self.norm(x, domain=0)
        return y


BUILT: dict[str, Any] = {
    "BatchNorm1d": lambda: seqnorm.BatchNorm1d(C),
    "SyncBatchNorm": lambda: seqnorm.SyncBatchNorm(C),
    "GhostBatchNorm1d": lambda: seqnorm.GhostBatchNorm1d(C, ghost_size=2),
    "BatchRenorm1d": lambda: seqnorm.BatchRenorm1d(C),
    "DomainBatchNorm1d": FirstDomain,
    "InstanceNorm1d": lambda: seqnorm.InstanceNorm1d(C),
    "GroupNorm": lambda: seqnorm.GroupNorm(2, C),
    'LayerNorm(over="CL")': lambda: seqnorm.LayerNorm(C, over="CL"),
    'LayerNorm(over="C")': lambda: seqnorm.LayerNorm(C),
    "RMSNorm": lambda: seqnorm.RMSNorm(C),
    "FilterResponseNorm1d": lambda: seqnorm.FilterResponseNorm1d(C),
    "AdaIN": Styled,
    "QKNorm": Queries,
    "DynamicTanh": lambda: seqnorm.DynamicTanh(C),
    "NoNorm": seqnorm.NoNorm,
}


@pytest.mark.parametrize("name", BUILT)
def test_what_a_norm_leaks_is_what_the_page_says(name: str) -> None:
    torch.manual_seed(0)
    found = leak_report(BUILT[name](), torch.randn(4, C, 6))
    train = {row.axis for row in found.rows if row.mode == "train" and row.reaches_others}
    said = ROWS[name][2]
    assert train == (set() if said == "nothing" else set(said.split(", ")))
    later = {row.axis for row in found.rows if row.mode == "eval" and row.reaches_others}
    assert later == (set() if "sample" in train else train)


def test_the_page_names_every_layer() -> None:
    from seqnorm import layers

    names = {name.partition("(")[0] for name in ROWS}
    public = {n for n in layers.__all__ if isinstance(getattr(layers, n), type)}
    assert names == public | {"BackgroundNorm"}


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    exec(compile(code, "docs/norms.md", "exec"), {})
    assert "GroupNorm" in capsys.readouterr().out
