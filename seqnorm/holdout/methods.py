"""A methods paragraph, ready for a paper, from the spec and the record of the run."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

from data_tools.motif_matches import SHUFFLES
from seqnorm.holdout.design import claims_of
from seqnorm.holdout.filters import SITES
from seqnorm.holdout.spec import Model, Spec
from seqnorm.holdout.tables import PRIMARY_METRIC
from seqnorm.holdout.titles import NEGATIVES_TITLES, metric_title, model_title, title
from seqnorm.holdout.words import level, sized

BANERJEE = (
    "Banerjee S. K. (1960) Approximate confidence interval for linear functions of means of k "
    "populations when the population variances are not equal. Sankhyā 22, 357–358."
)
BENGIO = (
    "Bengio Y., Grandvalet Y. (2004) No unbiased estimator of the variance of k-fold "
    "cross-validation. Journal of Machine Learning Research 5, 1089–1105."
)
GUPTA = (
    "Gupta S., Stamatoyannopoulos J. A., Bailey T. L., Noble W. S. (2007) Quantifying similarity "
    "between motifs. Genome Biology 8, R24."
)
HOLM = (
    "Holm S. (1979) A simple sequentially rejective multiple test procedure. Scandinavian Journal "
    "of Statistics 6, 65–70."
)
LI = (
    "Li Y. et al. (2016) Revisiting batch normalization for practical domain adaptation. "
    "arXiv:1603.04779."
)
LOSHCHILOV = (
    "Loshchilov I., Hutter F. (2019) Decoupled weight decay regularization. arXiv:1711.05101."
)
OBUCHOWSKI = (
    "Obuchowski N. A., Rockette H. E. (1995) Hypothesis testing of diagnostic accuracy for "
    "multiple readers and multiple tests. Communications in Statistics: Simulation 24, 285–308."
)
SCHUIRMANN = (
    "Schuirmann D. J. (1987) A comparison of the two one-sided tests procedure and the power "
    "approach for assessing the equivalence of average bioavailability. Journal of "
    "Pharmacokinetics and Biopharmaceutics 15, 657–680."
)


class Methods(NamedTuple):
    """What was done, in words.

    Attributes
    ----------
    paragraphs : tuple of str
        Windows and split; models and training; evaluation and inference; software.
    references : tuple of str
        What they cite.
    """

    paragraphs: tuple[str, ...]
    references: tuple[str, ...]


def methods(spec: Spec, record: Mapping[str, Any]) -> Methods:
    """Write the methods of a run.

    Parameters
    ----------
    spec
        The experiment.
    record
        ``run.json``: the versions.
    """
    parts = (
        f"{_windows(spec)} {_negatives(spec)} {_split(spec)}",
        f"{_models(spec)} {_training(spec)} {_tuning(spec)}",
        f"{_metrics(spec)} {_inference(spec)} {_claims(spec)} {_filters(spec)}",
        _software(record),
    )
    by_chromosome = spec.evaluation.unit == "chromosome"
    cited = [BENGIO] if by_chromosome else [BANERJEE, OBUCHOWSKI]
    if any(norm.endswith("+adapted") for norm in spec.norms):
        cited.append(LI)
    if spec.evaluation.motifs is not None:
        cited.append(GUPTA)
    references = tuple(sorted([*cited, HOLM, LOSHCHILOV, SCHUIRMANN]))
    return Methods(tuple(" ".join(part.split()) for part in parts), references)


def _file(name: str | None) -> str:
    return "" if name is None else PurePath(name).name


def _windows(spec: Spec) -> str:
    if data := spec.data:
        exclude = f", regions of {_file(data.exclude)} excluded" if data.exclude else ""
        return (
            f"Positives were windows of {data.width} bases about the summits of the peaks in "
            f"{_file(data.peaks)} (genome {_file(data.genome)}{exclude}); training windows were "
            f"shifted by up to {data.jitter} bases."
        )
    if table := spec.table:
        return f"Labelled sequences of one width were taken from {_file(table.file)}."
    assert spec.simulation is not None
    given = spec.simulation
    gc = ", ".join(f"{name} {100 * value:g} %" for name, value in given.gc.items())
    return (
        f"Genomes were simulated with chromosomes of stated mean GC ({gc}), "
        f"{given.bases:,} bases each ({given.training_bases:,} for training), isochores of "
        f"{given.isochore:,} bases and a CpG ratio of {given.cpg:g}. Windows had {given.width} "
        f"bases; a fraction of {given.prevalence:g} were positives and held a site of "
        f"{_file(given.motif)}, at a confounding of label and GC of {given.confounding:g} "
        f"within a chromosome and with decoy sites in {given.decoys:g} of the negatives, unless "
        "a task says otherwise."
    )


def _negatives(spec: Spec) -> str:
    kinds = _listed([NEGATIVES_TITLES[kind] for kind in spec.negatives.kinds])
    many = spec.negatives.per_positive
    evaluated = "random negatives" if spec.data else "all windows of a test chromosome"
    tasks = ""
    if len(spec.tasks) > 1:
        told = [
            f"{task.name} ({task.control} control)" if task.control else task.name
            for task in spec.tasks
        ]
        tasks = f" The tasks were {_listed(told)}."
    drawn = "" if not spec.data and spec.negatives.kinds == ("random",) else f", {many} a positive"
    return f"Models were trained with {kinds} negatives{drawn}; evaluation used {evaluated}.{tasks}"


def _split(spec: Spec) -> str:
    split = spec.split
    if split.validation:
        chooses = f"validation was {_listed(list(split.validation))}"
    else:
        chooses = (
            f"validation was every {_ordinal(split.validation_every)} block of {spec.block:,} "
            "bases of the training chromosomes"
        )
    if split.design == "leave_one_out":
        also = f", {_listed(list(split.train))} always among them" if split.train else ""
        design = (
            f"Each of {len(split.test)} chromosomes was left out in turn and tested by models "
            f"trained on the others{also}"
        )
    else:
        design = f"Models were trained on {_listed(list(split.train))} and tested on "
        design += _listed(list(split.test))
    primary = _listed(list(split.primary))
    return (
        f"{design}; {chooses}. Validation alone chose thresholds, epochs and learning rates. The "
        f"primary figure is the mean over {primary}."
    )


def _models(spec: Spec) -> str:
    named = _listed([_model(model) for model in spec.models])
    norms = "; ".join(f"{title(norm)} ({norm})" for norm in spec.norms)
    text = (
        f"Models were {named}, whose logits are averaged over both strands. Norms "
        f"compared: {norms}. Models of one seed began with the same convolution and head weights "
        "and saw the same windows in the same order, whatever the norm."
    )
    if any(norm.endswith("+again") for norm in spec.norms):
        text += " Norms marked +again had other random numbers, as a control of no difference."
    if any(norm.endswith("+adapted") for norm in spec.norms):
        text += (
            " Norms marked +adapted had the statistics of BatchNorm measured again, without "
            "labels, on each test chromosome and on the validation windows (Li et al. 2016)."
        )
    return text


def _model(model: Model) -> str:
    options = ", ".join(f"{name} {value}" for name, value in model.options.items())
    return f"the {model_title(model.name)}" + (f" ({options})" if options else "")


def _training(spec: Spec) -> str:
    given = spec.training
    return (
        f"Training minimized cross-entropy with AdamW (Loshchilov & Hutter 2019; weight decay "
        f"{given.weight_decay:g}, batches of {given.batch_size}, {given.precision}) for up to "
        f"{given.epochs} epochs, with linear warm-up over {100 * given.warmup:g} % of the steps "
        f"and cosine decay; it stopped after {given.patience} epochs without a better average "
        "precision on validation, and the best epoch was kept."
    )


def _tuning(spec: Spec) -> str:
    given = spec.training
    rates = _listed([f"{rate:g}" for rate in sorted(given.learning_rates)])
    seeds = f"{len(given.seeds)} seed{'s' * (len(given.seeds) > 1)}"
    if len(given.learning_rates) == 1:
        return f"The learning rate was {rates} for every norm. Each was trained with {seeds}."
    first = "the first seed" if given.tuning_seeds == 1 else f"the first {given.tuning_seeds} seeds"
    return (
        f"Every norm tried the same learning rates ({rates}) with {first}; the best mean average "
        f"precision on validation chose. Each norm was then trained with {seeds}."
    )


def _metrics(spec: Spec) -> str:
    given = spec.evaluation
    return (
        f"The primary metric is the false-alarm rate of test negatives at the threshold that gives "
        f"{level(given.false_alarm_rate)} on validation negatives. Recall, AUROC and average "
        f"precision were taken on chromosomes with at least {spec.split.few_positives} positives."
    )


def _inference(spec: Spec) -> str:
    given = spec.evaluation
    others = sum(not norm.endswith("+again") for norm in spec.norms) - 1
    if given.unit == "chromosome":
        text = (
            f"Intervals ({level(given.confidence)}) of means over chromosomes are Student's t of "
            "the chromosomes' figures, each chromosome one observation, with at least the variance "
            "that bootstrap resamples of their blocks have; those of single "
            f"chromosomes come from {given.resamples:,} bootstrap resamples of blocks of the "
            "genome. Differences between norms are paired by chromosome and seed. Models of "
            "different chromosomes share most of what they learnt from, which no variance of one "
            "cross-validation can show (Bengio & Grandvalet 2004)."
        )
    else:
        text = _by_block(spec)
    if others > 1:
        text += (
            " Over the norms compared, p values were adjusted as in Holm (1979) and intervals as "
            "in Bonferroni."
        )
    return text + (
        f" Equivalence was tested by two one-sided tests (Schuirmann 1987) with a margin of "
        f"{sized(PRIMARY_METRIC, given.margin)}."
    )


def _by_block(spec: Spec) -> str:
    given = spec.evaluation
    return (
        f"Intervals ({level(given.confidence)}) combine the variance between seeds with that "
        f"between blocks of the genome ({given.resamples:,} bootstrap resamples of blocks, the "
        "threshold taken anew from each; Obuchowski & Rockette 1995), each with its own quantile "
        "of Student's t (Banerjee 1960). Differences between norms are paired by seed and block."
    )


def _claims(spec: Spec) -> str:
    claims = [claim for claim, _ in claims_of(spec)]
    if not claims:
        return "No hypothesis was stated before the run; the analysis is exploratory."
    told = [
        f"{claim.name}: {title(claim.norm)} against {title(claim.reference)}, "
        f"{metric_title(claim.metric)} {claim.direction} by at least "
        f"{sized(claim.metric, claim.smallest_effect)}"
        for claim in claims
    ]
    return f"Stated before the run: {'; '.join(told)}. {spec.evaluation.stopping}"


def _filters(spec: Spec) -> str:
    if spec.evaluation.motifs is None:
        return ""
    return (
        f"In the first seed of each norm, the {SITES} subsequences of test windows that excite a "
        "filter of the first convolution most, at most one of a window, made its motif. Motifs "
        f"were looked up in {_file(spec.evaluation.motifs)} with TOMTOM (Gupta et al. 2007); a "
        f"match had p < {round(1 - spec.evaluation.confidence, 6):g} after adjusting for all "
        "motifs of the collection and all filters of a norm (Bonferroni), and none of "
        f"{SHUFFLES} shuffles of the filter's columns was as much like any motif."
    )


def _software(record: Mapping[str, Any]) -> str:
    session = record["sessions"][-1]
    named = [f"{name} {version}" for name, version in session["libraries"].items()]
    revision = f" (revision {session['git_revision']})" if session.get("git_revision") else ""
    return (
        f"Software: seqnorm {session['seqnorm']}{revision}, Python {session['python']}, "
        f"{', '.join(named)}."
    )


def _listed(names: list[str]) -> str:
    """Names in a row.

    Examples
    --------
    >>> _listed(["a"]), _listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _ordinal(number: int) -> str:
    names = {2: "second", 3: "third", 4: "fourth", 5: "fifth", 10: "tenth"}
    return names.get(number, f"{number}th")
