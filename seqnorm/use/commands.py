"""``seqnorm predict``, ``seqnorm explain`` and ``seqnorm variants``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tyro

from data_tools.errors import InputError
from seqnorm.use.steps import CommonOptions, counted_scores, intervals_of, tell, write_scores

ErrorOrDrop = Literal["error", "drop"]


def predict(
    model: tyro.conf.Positional[Path],
    common: CommonOptions,
    out: Path,
    bed: Path | None = None,
    step: int | None = None,
    chroms: tuple[str, ...] = (),
    chrom_style: Literal["exact", "match"] = "exact",
) -> None:
    """Score windows along whole chromosomes, or around the intervals of a BED file.

    Example: seqnorm predict runs/x/trials/y --genome genome.fa.gz --step 50 --out scores.bw
    Example: seqnorm predict runs/x/trials/y --genome hg38.2bit --bed peaks.bed --out scores.tsv

    Scores are logits, averaged over both strands. Along chromosomes a window begins every --step
    bases; TSV has the windows themselves, bigWig and bedGraph give each score to the middle --step
    bases of its window. Of a BED file, the window lies around the summit, or the middle, of each
    interval; TSV keeps every row in its order, bigWig and bedGraph give the score to the interval.
    Memory does not grow with the genome: at most 1 MiB of bases, one batch, and the BED file.

    Args:
        model: Folder of a saved model, such as runs/x/trials/y.
        common: What all three commands take.
        out: File to write: .bw, .bedgraph or .tsv.
        bed: BED, narrowPeak or broadPeak file; whole chromosomes unless given.
        step: From the start of a window to that of the next; their width unless given.
        chroms: Chromosomes to use; all unless given.
        chrom_style: match reads 1 as chr1, or the reverse, where that is what the genome has.
    """
    from seqnorm.use.files import check_out

    kind = check_out(out)
    if bed is not None and step is not None:
        raise InputError("--step is for whole chromosomes; leave it out with --bed")
    scorer = common.load(model)

    from data_tools.commands.progress import counted
    from data_tools.counts import Counts
    from data_tools.genome import Genome
    from data_tools.splits import check_chromosomes
    from seqnorm.use.predict import as_bins, in_genome_order, predict_intervals, predict_tiles

    counts = Counts()
    with Genome(common.genome) as genome, counted("scoring") as progress:
        check_chromosomes(chroms, genome.lengths)
        if bed is None:
            apart = scorer.width if step is None else step
            parts = predict_tiles(
                scorer,
                genome,
                chroms=chroms,
                step=apart,
                ambiguous=common.ambiguous,
                progress=progress,
            )
            parts = counted_scores(parts, counts)
            if kind == "tsv":
                parts = (part.dropna(subset="score") for part in parts)
            else:
                parts = (as_bins(part, apart) for part in parts)
        else:
            table = intervals_of(bed, genome, chroms, chrom_style, counts)
            if kind != "tsv":
                table = in_genome_order(table, genome)
            parts = predict_intervals(
                scorer, genome, table, ambiguous=common.ambiguous, progress=progress
            )
            parts = counted_scores(parts, counts)
        write_scores(parts, kind, genome, out)
    tell(counts)


def explain(
    model: tyro.conf.Positional[Path],
    common: CommonOptions,
    bed: Path,
    out: Path,
    method: Literal["ism", "gradient"] = "ism",
    logos: int = 10,
    logo_width: int = 100,
    chrom_style: Literal["exact", "match"] = "exact",
) -> None:
    """Tell which bases the scores of windows rest on: tables, arrays, logos and a page.

    Example: seqnorm explain runs/x/trials/y --genome hg38.2bit --bed peaks.bed --out explained

    The window lies around the summit, or the middle, of each interval. ism replaces every base by
    the other three; gradient takes the slope, through the norms and their statistics. Contributions
    are effects less their mean over the four bases, at the base that is there. Memory: a batch,
    and some 60 bytes for each base of all windows.

    Args:
        model: Folder of a saved model, such as runs/x/trials/y.
        common: What all three commands take.
        bed: BED, narrowPeak or broadPeak file.
        out: Folder to make: index.html, explanation.tsv, explanation.npz and logos/*.svg.
        method: ism costs 3 * width + 1 scores a window, gradient about three.
        logos: Draw the first so many windows.
        logo_width: Bases in a logo; of wider windows those where contributions are largest.
        chrom_style: match reads 1 as chr1, or the reverse, where that is what the genome has.
    """
    if logos < 0 or logo_width < 1:
        raise InputError("--logos is 0 or more, --logo-width 1 or more")
    from seqnorm.use.pictures import check_folder, write_explanation

    check_folder(out)
    scorer = common.load(model)

    from data_tools.commands.progress import counted
    from data_tools.counts import Counts
    from data_tools.genome import Genome
    from seqnorm.use.explain import explain_windows
    from seqnorm.use.windows import known_windows

    counts = Counts()
    with Genome(common.genome) as genome, counted("explaining") as progress:
        table = intervals_of(bed, genome, (), chrom_style, counts)
        windows, codes = known_windows(table, genome, scorer.width, common.ambiguous)
        counts.note("windows: explained", len(windows))
        counts.note("windows: dropped, with N or past the end", len(table) - len(windows))
        if windows.empty:
            raise InputError(f"{bed}: every window holds an N or leaves its chromosome")
        found = explain_windows(scorer, codes, method, progress)
    write_explanation(
        out,
        windows,
        found,
        model=str(model),
        method=method,
        logos=logos,
        logo_width=logo_width,
    )
    tell(counts)


def variants(
    model: tyro.conf.Positional[Path],
    vcf: tyro.conf.Positional[Path],
    common: CommonOptions,
    out: Path,
    shifts: tuple[int, ...] = (0,),
    ref_mismatch: ErrorOrDrop = "error",
    not_sequence: ErrorOrDrop = "error",
    duplicates: Literal["error", "drop", "keep"] = "error",
    unknown_chrom: ErrorOrDrop = "error",
    out_of_range: ErrorOrDrop = "error",
    chrom_style: Literal["exact", "match"] = "exact",
) -> None:
    """Score what each allele of a VCF file does: the window with ALT less that with REF.

    Example: seqnorm variants runs/x/trials/y calls.vcf.gz --genome hg38.2bit --out effects.tsv

    Each window is laid around the middle of its allele, and the genome fills it up on both sides;
    of an allele that is wider than the window, it shows the middle. A row with several ALT alleles
    gives a row each. The columns: chrom, pos (from 1), id, ref, alt, allele, ref_score, alt_score,
    effect; logits, averaged over both strands.

    Args:
        model: Folder of a saved model, such as runs/x/trials/y.
        vcf: VCF file, plain, gzip or bgzip.
        common: What all three commands take.
        out: TSV file to write.
        shifts: Average over windows that are moved by so many bases, as -10 0 10.
        ref_mismatch: For alleles whose REF is not what the genome has.
        not_sequence: For alleles that are no sequence, as <DEL> and *.
        duplicates: For alleles that occur before.
        unknown_chrom: For rows on a chromosome that the genome lacks.
        out_of_range: For rows past the end of their chromosome.
        chrom_style: match reads 1 as chr1, or the reverse, where that is what the genome has.
    """
    from seqnorm.use.files import check_out

    check_out(out, {".tsv": "tsv"})
    scorer = common.load(model)

    from data_tools.commands.progress import counted
    from data_tools.counts import Counts
    from data_tools.genome import Genome
    from data_tools.variants import read_variants
    from seqnorm.use.variants import variant_effects

    counts = Counts()
    with Genome(common.genome) as genome, counted("scoring") as progress:
        table = read_variants(
            vcf,
            genome,
            ref_mismatch=ref_mismatch,
            not_sequence=not_sequence,
            duplicates=duplicates,
            chrom_style=chrom_style,
            unknown_chrom=unknown_chrom,
            out_of_range=out_of_range,
            counts=counts,
        )
        wide = (table["ref"].str.len() > scorer.width) | (table["alt"].str.len() > scorer.width)
        counts.note("alleles: wider than the window, which shows their middle", int(wide.sum()))
        parts = variant_effects(
            scorer, genome, table, shifts=shifts, ambiguous=common.ambiguous, progress=progress
        )
        write_scores(counted_scores(parts, counts, "effect"), "tsv", genome, out)
    tell(counts)
