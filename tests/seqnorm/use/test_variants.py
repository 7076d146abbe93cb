"""Effects of alleles are those of the two sequences, written out as text."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.encode import encode
from data_tools.errors import InputError
from data_tools.genome import Genome
from seqnorm.use.scorer import Scorer
from seqnorm.use.variants import variant_effects

WIDTH = 60
"""Of the fixtures' scorer."""


def row(genome: Genome, chrom: str, start: int, length: int, alt: str) -> dict[str, object]:
    ref = genome.fetch(chrom, start, start + length)
    return {
        "chrom": chrom, "start": start, "end": start + length, "name": None, "ref": ref,
        "alt": alt, "allele": 1,
    }  # fmt: skip


def window(genome: Genome, chrom: str, start: int, end: int, allele: str, shift: int) -> str:
    """The haplotype of a whole chromosome, and its window around the middle of the allele."""
    size = genome.lengths[chrom]
    whole = genome.fetch(chrom, 0, start) + allele + genome.fetch(chrom, end, size)
    first = start + len(allele) // 2 - WIDTH // 2 + shift
    padded = "N" * WIDTH + whole + "N" * WIDTH
    return padded[first + WIDTH : first + 2 * WIDTH]


def effects(scorer: Scorer, genome: Genome, table: pd.DataFrame, **options: object) -> pd.DataFrame:
    parts = variant_effects(scorer, genome, table, **options)  # type: ignore[arg-type]
    return pd.concat(list(parts), ignore_index=True)


BASES = st.text("ACGT", min_size=1, max_size=90)


@settings(max_examples=60, deadline=None)
@given(
    start=st.integers(0, 1899),
    length=st.integers(1, 100),
    alt=BASES,
    shifts=st.lists(st.integers(-25, 25), min_size=1, max_size=3, unique=True),
)
def test_an_effect_is_the_score_of_alt_less_that_of_ref(
    genome: Genome, scorer: Scorer, start: int, length: int, alt: str, shifts: list[int]
) -> None:
    table = pd.DataFrame([row(genome, "chrA", start, length, alt)])
    found = effects(scorer, genome, table, shifts=shifts, ambiguous="score").loc[0]
    means = []
    for allele in (str(table["ref"][0]), alt):
        texts = [window(genome, "chrA", start, start + length, allele, s) for s in shifts]
        means.append(scorer.scores(np.stack([encode(text) for text in texts])).mean())
    assert abs(found["ref_score"] - means[0]) < 1e-6
    assert abs(found["alt_score"] - means[1]) < 1e-6
    assert abs(found["effect"] - (means[1] - means[0])) < 2e-6
    assert found["pos"] == start + 1


def test_an_allele_that_is_the_reference_does_nothing(genome: Genome, scorer: Scorer) -> None:
    rows = [row(genome, "chrA", at, 3, genome.fetch("chrA", at, at + 3)) for at in (100, 700)]
    assert (effects(scorer, genome, pd.DataFrame(rows))["effect"] == 0).all()


def test_undoing_a_variant_has_the_opposite_effect(
    genome: Genome, scorer: Scorer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    forth = effects(scorer, genome, pd.DataFrame([row(genome, "chrA", 900, 4, "GATTACA")]))
    other = tmp_path_factory.mktemp("other") / "changed.fa"
    whole = genome.fetch("chrA", 0, 900) + "GATTACA" + genome.fetch("chrA", 904, 2000)
    other.write_text(f">chrA\n{whole}\n")
    with Genome(other) as changed:
        ref = genome.fetch("chrA", 900, 904)
        back = effects(scorer, changed, pd.DataFrame([row(changed, "chrA", 900, 7, ref)]))
    assert forth["effect"][0] == -back["effect"][0] != 0


def test_windows_with_n_or_past_the_end_have_no_effect(genome: Genome, scorer: Scorer) -> None:
    places = [("chrB", 980), ("chrB", 2000), ("chrA", 5), ("chrA", 1990), ("tiny", 10)]
    table = pd.DataFrame([row(genome, chrom, start, 1, "ACG") for chrom, start in places])
    found = effects(scorer, genome, table)
    assert found["effect"].isna().tolist() == [True, False, True, True, True]
    assert effects(scorer, genome, table, ambiguous="score")["effect"].notna().all()


def test_small_parts_give_what_one_part_gives(
    genome: Genome, scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(genome, "chrA", at, 1 + at % 3, "ACGT"[: 1 + at % 4]) for at in range(50, 250)]
    once = effects(scorer, genome, pd.DataFrame(rows), shifts=(-3, 0, 3))
    monkeypatch.setattr("seqnorm.use.variants.CODES", 4 * WIDTH * 7)
    parts = list(variant_effects(scorer, genome, pd.DataFrame(rows), shifts=(-3, 0, 3)))
    assert max(map(len, parts)) == 7
    again = pd.concat(parts, ignore_index=True)
    pd.testing.assert_frame_equal(again, once, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shifts", [(), (30,), (-30,), (1, 1)])
def test_shifts_that_cannot_be_are_told(
    genome: Genome, scorer: Scorer, shifts: tuple[int, ...]
) -> None:
    table = pd.DataFrame([row(genome, "chrA", 500, 1, "A")])
    with pytest.raises(InputError, match="different numbers of bases below 30"):
        effects(scorer, genome, table, shifts=shifts)
