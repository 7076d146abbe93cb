"""What is run against FLamby, over which rates, and what FLamby published."""

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

__all__ = ["ADAM_CONSTANTS", "METHODS", "REPEATS", "Method", "Published"]


class Published(NamedTuple):
    """FLamby's figures, means over its seeds 42 to 46.

    Of ``flamby/results/results_benchmark_fed_*/*_seed4?.csv`` at commit edacf54.

    Attributes
    ----------
    pooled : float
        Of the rows "Pooled Test": the metric over the test rows of all clients at once.
    spread : float
        Standard deviation of it over the seeds, n - 1.
    clients : float
        Mean of the rows "client_test_*".
    """

    pooled: float
    spread: float
    clients: float


@dataclass(frozen=True)
class Method:
    """One line of the table.

    Attributes
    ----------
    data : str
        Name of the spec.
    name : str
    published : Published or None
    rates : tuple of float
        Learning rates of clients to choose from.
    etas : tuple of float
        The same of the server; empty where the strategy has none.
    overrides : tuple of str
        Of the spec.
    goal : bool
        Whether to reach FLamby's figure was a goal set beforehand.
    epochs : int or None
        All rows at one place for so many epochs by Adam, instead of rounds.
    """

    data: str
    name: str
    published: Published | None
    rates: tuple[float, ...]
    etas: tuple[float, ...] = ()
    overrides: tuple[str, ...] = ()
    goal: bool = False
    epochs: int | None = None

    @property
    def key(self) -> str:
        """Its name among all."""
        return f"{self.data}: {self.name}"

    def grid(self) -> list[tuple[float, float | None]]:
        """Every pair of rates, the smallest first."""
        return list(product(self.rates, self.etas or (None,)))


HEART_RATES, BRCA_RATES = (0.001, 0.01, 0.1), (0.01, 0.03, 0.1, 0.3)
ADAM_RATES = (0.003, 0.01, 0.03)
HEART_ETAS, BRCA_ETAS = (0.01, 0.03, 0.1), (0.01, 0.03, 0.1, 0.3)
# Flower's FedAdam corrects eta for the bias of its moments and FLamby's does not: over five rounds
# an eta of FLamby's moves the weights as about five times that does in Flower's. So its grid is as
# long, and begins higher.
FLOWER_HEART_ETAS, FLOWER_BRCA_ETAS = (0.03, 0.1, 0.3), (0.03, 0.1, 0.3, 1.0)
# Of the server's Adam, as FLamby has them.
ADAM_CONSTANTS = {"beta_2": 0.999, "tau": 1e-8}
FLOWER, SCAFFOLD = ("strategy.name=fedadam",), ("strategy.name=scaffold",)
FEDADAM = (*FLOWER, "strategy.options.bias_correction=0")
REPEATS = {"heart": 10, "brca": 10}
"""Of the five folds of the cross-validation: rates a thousandth apart are to be told apart."""

METHODS = (
    Method("heart", "FedAvg", Published(0.7480, 0.0268, 0.6850), HEART_RATES, goal=True),
    Method(
        "heart", "FedAdam", Published(0.7787, 0.0146, 0.7255), (0.003, 0.01), HEART_ETAS, FEDADAM
    ),
    Method(
        "heart",
        "FedAdam with Flower's bias correction",
        None,
        (0.003, 0.01),
        FLOWER_HEART_ETAS,
        FLOWER,
    ),
    Method("heart", "SCAFFOLD", Published(0.7480, 0.0268, 0.6840), HEART_RATES, overrides=SCAFFOLD),
    Method(
        "heart",
        "pooled training",
        Published(0.7953, 0.0028, 0.7353),
        (0.0003, 0.001, 0.003, 0.01),
        goal=True,
        epochs=50,
    ),
    Method("brca", "FedAvg", Published(0.7353, 0.1750, 0.7319), BRCA_RATES),
    Method(
        "brca",
        "FedAdam",
        Published(0.8421, 0.0168, 0.8152),
        ADAM_RATES,
        BRCA_ETAS,
        FEDADAM,
        goal=True,
    ),
    Method(
        "brca",
        "FedAdam at FLamby's rates, nothing chosen",
        Published(0.8421, 0.0168, 0.8152),
        (0.01,),
        (0.1,),
        FEDADAM,
    ),
    Method(
        "brca",
        "FedAdam with Flower's bias correction",
        None,
        ADAM_RATES,
        FLOWER_BRCA_ETAS,
        FLOWER,
    ),
    Method(
        "brca",
        "SCAFFOLD",
        Published(0.6995, 0.0347, 0.6869),
        (0.003, 0.01, 0.03, 0.1),
        overrides=SCAFFOLD,
    ),
    Method(
        "brca",
        "pooled training",
        Published(0.7041, 0.1144, 0.6759),
        (0.001, 0.003, 0.01, 0.03, 0.1),
        epochs=30,
    ),
)
"""Every line, in the table's order."""
