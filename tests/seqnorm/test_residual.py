import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from seqnorm.batches import one_hot
from seqnorm.models import ResidualCNN, build_model


def bases(n: int, length: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return one_hot(torch.randint(0, 4, (n, length), generator=generator), torch.float64)


def reach(model: ResidualCNN, length: int) -> list[int]:
    """Bases that influence the middle of what is pooled."""
    seen: list[Tensor] = []
    model.pooling.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    x = bases(1, length).requires_grad_()
    model(x)
    (gradient,) = torch.autograd.grad(seen[0][0, :, length // 2].sum(), x)
    found: list[int] = gradient[0].abs().sum(0).nonzero().flatten().tolist()
    return found


def test_the_trunk_is_that_of_the_formula() -> None:
    torch.manual_seed(0)
    model = ResidualCNN("none", channels=6, kernel_size=5, blocks=3).double()
    x = bases(2, 40)
    h = F.conv1d(x, model.stem.weight, model.stem.bias, padding=2).relu()
    for i, conv in enumerate(model.convs, 1):
        gap = 2**i
        padded = F.pad(h, (gap, gap))
        taps = [padded[..., k * gap : k * gap + 40] for k in range(3)]
        branch = sum(conv.weight[..., k] @ taps[k] for k in range(3)) + conv.bias[:, None]
        h = h + branch.relu()
    expected = model.head(torch.cat([h.amax(-1), h.mean(-1)], 1))
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize(
    ("options", "width"),
    [({}, 143), ({"blocks": 1, "kernel_size": 5}, 9), ({"inner_kernel_size": 5, "blocks": 3}, 75)],
)
def test_a_position_sees_as_many_bases_as_dilation_says(
    options: dict[str, int], width: int
) -> None:
    torch.manual_seed(0)
    # Without a norm that looks along the sequence; every second tap may lie between others.
    seen = reach(ResidualCNN("layer", channels=64, **options).double(), 201)
    assert (seen[0], seen[-1]) == (100 - width // 2, 100 + width // 2)
    assert len(seen) == width


def test_a_sequence_shorter_than_the_dilation_gives_an_answer_as_in_a_batch() -> None:
    model = build_model("residual", "batch", 0, blocks=6).double().eval()
    x = bases(2, 90)
    together = model(x, torch.tensor([90, 3]))
    torch.testing.assert_close(together[1:], model(x[1:, :, :3]), rtol=0, atol=1e-12)


def test_the_default_learns_on_a_processor_within_seconds() -> None:
    model = build_model("residual", "batch", 0)
    assert sum(weight.numel() for weight in model.parameters()) < 25_000
    x = bases(32, 250).float()
    labels = (torch.arange(32) % 2).float()[:, None]
    motif = torch.eye(4)[[0, 2, 2, 0, 1, 3, 3, 2]].T
    x[::2, :, 100:108] = motif
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(15):
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(model(x), labels)
        loss.backward()
        optimizer.step()
    assert loss < 0.5
