"""Names, colours and markers that stay the same in every table and figure."""

from __future__ import annotations

from typing import NamedTuple

from raylab.types import ORIGINAL


class Style(NamedTuple):
    """How a condition is named and drawn."""

    name: str
    color: str
    short: str = ""  # for the head of a narrow column
    deed: str = ""  # what was done to a layer, where it is not its name


# Blue and orange as in the paper; all four from Okabe and Ito's palette for colour-blind readers.
STYLES = {
    ORIGINAL: Style("unperturbed", "#757b87"),  # not "trained": who gives a model may give one with random weights
    "reinit": Style("re-initialised", "#0072B2", "re-init."),
    "rerandomize": Style("re-randomised", "#E69F00", "re-rand."),
    "reinit_signs": Style(
        "re-init. signs", "#009E73", "signs", "given its re-initialised signs on re-randomised magnitudes"
    ),
    "permute": Style("permuted", "#CC79A7"),
}
SPARE = ("#56B4E9", "#D55E00", "#882255", "#999933")
RANGES = ("#0072B2", "#E69F00", "#CC79A7", *SPARE)  # of alpha, from low to high
CRITICAL = "#D55E00"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
GLYPHS = dict(zip((*MARKERS, "_", "|"), "●■▲◆▼✚✖◀▶★–|", strict=True))  # the markers as text
HOLLOW = dict(zip("osD^v", "○□◇△▽", strict=True))

# The eight of the paper's Figure 3, then the rest, in the order in which they are shown.
PRIMARY = (
    "alpha",
    "alpha_hat",
    "log_alpha_norm",
    "mp_softrank",
    "spectral_norm",
    "stable_rank",
    "entropy",
    "frobenius_norm",
)
SIMILARITY = ("activation_disagreement", "js_divergence", "linear_cka")
METRICS = {
    "alpha": "α",
    "alpha_hat": "α̂ = α·log₁₀ λmax",
    "log_alpha_norm": "log α-norm",
    "mp_softrank": "MP soft rank",
    "spectral_norm": "spectral norm λmax",
    "stable_rank": "stable rank",
    "entropy": "entropy",
    "frobenius_norm": "Frobenius norm",
    "activation_disagreement": "activation disagreement",
    "js_divergence": "JS divergence",
    "linear_cka": "linear CKA",
    "accuracy": "accuracy",
    "loss": "loss",
}


def metric(name: str) -> str:
    """A metric to read: the column's name with blanks where there is no better one."""
    return METRICS.get(name, name.replace("_", " "))


def style(condition: str) -> Style:
    """Name and colour of a condition; a user's own perturbation gets a spare colour by its name."""
    known = STYLES.get(condition)
    name = condition if ":" in condition else condition.replace("_", " ")
    return known or Style(name, SPARE[sum(condition.encode()) % len(SPARE)])


def condition(name: str) -> str:
    """A condition of the correlations to read: "all" or "reinit+rerandomize" stand for several perturbations."""
    return "all perturbed" if name == "all" else " + ".join(style(part).name for part in name.split("+"))


def short(name: str) -> str:
    """A condition of the correlations for the head of a narrow column."""
    return (
        "together" if name == "all" else " + ".join(style(part).short or style(part).name for part in name.split("+"))
    )


def in_order(metrics: list[str]) -> list[str]:
    """The paper's eight first, then the similarities, then the others as they come."""
    first = [name for name in (*PRIMARY, *SIMILARITY) if name in metrics]
    return first + [name for name in metrics if name not in first]


def marker(place: int, layers: int) -> str:
    """The marker of a layer; all alike where there are more layers than markers."""
    return MARKERS[place] if layers <= len(MARKERS) else "o"
