from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from data_tools.encode import encode
from data_tools.encode import one_hot as one_hot_of_data_tools
from data_tools.encode import reverse_complement as reverse_complement_of_letters
from seqnorm.batches import LabelledWindows, one_hot
from seqnorm.models import reverse_complement

WIDTH, MARGIN = 20, 4


class Shown(NamedTuple):
    index: int
    shift: int
    reverse: bool


def windows(count: int, contents: int = 0, margin: int = MARGIN) -> LabelledWindows:
    """Random windows whose label is their index, so that a batch tells which ones it holds."""
    generator = torch.Generator().manual_seed(contents)
    codes = torch.randint(0, 4, (count, WIDTH + 2 * margin), generator=generator)
    return LabelledWindows(codes.to(torch.uint8), torch.arange(count).float(), margin)


def shown(data: LabelledWindows, batch_size: int, seed: int, epoch: int) -> list[Shown]:
    """Find out by comparison which window a batch shows, shifted how far, on which strand."""
    seen = []
    for x, y in data.shuffled(batch_size, seed, epoch):
        assert x.shape[1:] == (4, data.width)
        for row, label in zip(x, y.int().tolist(), strict=True):
            strands = {False: row, True: row.flip(0, 1)}
            candidates = [
                Shown(label, shift, reverse)
                for shift in range(2 * data.margin + 1)
                for reverse, strand in strands.items()
                if strand.equal(
                    one_hot(data.codes[label, shift : shift + data.width].unsqueeze(0))[0]
                )
            ]
            assert len(candidates) == 1
            seen.append(candidates[0])
    return seen


def sequences(count: int, length: int, seed: int) -> list[str]:
    letters = np.array(list("ACGTN"))
    drawn = np.random.default_rng(seed).integers(0, 5, (count, length))
    return ["".join(row) for row in letters[drawn]]


def padded(seqs: list[str]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(seq) for seq in seqs])
    x = torch.full((len(seqs), 4, int(lengths.max())), torch.nan)
    for row, seq in zip(x, seqs, strict=True):
        row[:, : len(seq)] = torch.from_numpy(one_hot_of_data_tools(seq))
    return x, lengths


def test_one_hot_equals_that_of_data_tools() -> None:
    codes = np.stack([encode(seq) for seq in sequences(7, 33, seed=0)])
    assert np.array_equal(one_hot(torch.from_numpy(codes)).numpy(), one_hot_of_data_tools(codes))


def test_one_hot_has_the_type_asked_for() -> None:
    codes = torch.tensor([[0, 4]], dtype=torch.uint8)
    assert one_hot(codes, torch.float64).dtype == torch.float64
    assert one_hot(codes, torch.float64).sum() == 1


def test_one_hot_of_codes_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(N, L\), got \(3,\)"):
        one_hot(torch.zeros(3, dtype=torch.uint8))


def test_the_reverse_complement_of_one_hot_is_the_one_hot_of_the_reverse_complement() -> None:
    seqs = sequences(6, 25, seed=1)
    turned = [reverse_complement_of_letters(seq) for seq in seqs]
    assert reverse_complement(torch.from_numpy(one_hot_of_data_tools(seqs))).equal(
        torch.from_numpy(one_hot_of_data_tools(turned))
    )


def test_the_reverse_complement_of_padded_sequences_is_theirs_one_by_one() -> None:
    seqs = [sequences(1, length, seed=length)[0] for length in (1, 25, 8, 24)]
    x, lengths = padded(seqs)
    expected, _ = padded([reverse_complement_of_letters(seq) for seq in seqs])
    assert reverse_complement(x, lengths).equal(expected.nan_to_num(0.0))


def test_an_epoch_shows_every_window_once_within_its_margin() -> None:
    seen = shown(windows(50), batch_size=8, seed=0, epoch=0)
    assert sorted(s.index for s in seen) == list(range(50))
    assert {s.shift for s in seen} == set(range(2 * MARGIN + 1))
    assert 10 < sum(s.reverse for s in seen) < 40


def test_order_jitter_and_strand_depend_on_seed_epoch_index_and_number_alone() -> None:
    expected = shown(windows(40), batch_size=8, seed=3, epoch=5)
    torch.manual_seed(12345)
    torch.rand(7)
    assert shown(windows(40), batch_size=7, seed=3, epoch=5) == expected
    assert shown(windows(40, contents=1), batch_size=40, seed=3, epoch=5) == expected
    assert shown(windows(40, contents=2), batch_size=1, seed=3, epoch=5) == expected


def test_another_seed_or_epoch_shows_windows_in_another_way() -> None:
    data = windows(40)
    plans = [shown(data, 8, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))]
    for field in Shown._fields:
        ways = {tuple(getattr(s, field) for s in sorted(plan)) for plan in plans}
        orders = {tuple(getattr(s, field) for s in plan) for plan in plans}
        assert len(orders) == 4
        assert field == "index" or len(ways) == 4


def test_batches_draw_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    list(windows(10).shuffled(3, 0, 0))
    list(windows(10).in_order(3))
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [
        (9, 4, [4, 4]),
        (10, 4, [4, 4, 2]),
        (8, 4, [4, 4]),
        (3, 8, [3]),
        (1, 4, [1]),
        (3, 1, [1, 1, 1]),
        (1, 1, [1]),
        (0, 4, []),
    ],
)
def test_a_last_batch_of_a_single_window_alone_is_left_out(
    count: int, batch_size: int, sizes: list[int]
) -> None:
    data = windows(count)
    assert [len(y) for _, y in data.shuffled(batch_size, 0, 0)] == sizes


def test_windows_in_order_are_unshifted_whole_and_on_the_given_strand() -> None:
    data = windows(7)
    x = torch.cat([x for x, _ in data.in_order(3)])
    y = torch.cat([y for _, y in data.in_order(3)])
    assert x.equal(one_hot(data.codes[:, MARGIN:-MARGIN]))
    assert y.equal(data.labels)


def test_without_a_margin_windows_are_shown_whole() -> None:
    data = windows(12, margin=0)
    assert {s.shift for s in shown(data, 5, 0, 0)} == {0}
    assert torch.cat([x for x, _ in data.in_order(5)]).equal(one_hot(data.codes))


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_below_one_is_refused(batch_size: int) -> None:
    with pytest.raises(ValueError, match="batch size must be at least 1"):
        list(windows(4).shuffled(batch_size, 0, 0))
    with pytest.raises(ValueError, match="batch size must be at least 1"):
        list(windows(4).in_order(batch_size))


CODES, LABELS = torch.zeros(3, 9, dtype=torch.uint8), torch.zeros(3)


@pytest.mark.parametrize(
    ("codes", "labels", "margin", "said"),
    [
        (CODES, torch.zeros(2), 0, "3 windows but 2 labels"),
        (CODES[0], LABELS, 0, r"uint8 of shape .* got torch.uint8 of shape \(9,\)"),
        (CODES.long(), LABELS, 0, "must be uint8 .* got torch.int64"),
        (CODES, torch.zeros(3, 1), 0, r"labels must be float32 .* \(3, 1\)"),
        (CODES, LABELS.long(), 0, "labels must be float32 .* got torch.int64"),
        (CODES, LABELS, 5, "9 bases hold no window with a margin of 5"),
        (CODES, LABELS, -1, "margin of -1"),
    ],
)
def test_windows_of_a_wrong_shape_type_or_margin_are_refused(
    codes: Tensor, labels: Tensor, margin: int, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        LabelledWindows(codes, labels, margin)
