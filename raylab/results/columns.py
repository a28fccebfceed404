"""Every column that raylab knows: its type, its group, what it means and in which unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa

TIME = pa.timestamp("us")  # naive, in UTC: reading a time zone would need the reader's tz database
ARROW: Mapping[type, pa.DataType] = {
    float: pa.float64(),
    int: pa.int64(),
    str: pa.string(),
    list: pa.list_(pa.float64()),
}


class Column(NamedTuple):
    """What is known of a column wherever it appears."""

    type: pa.DataType
    group: str  # identity, layer, outcome, evaluation, similarity, spectral, fit, provenance; "own" for a user's metric
    description: str


def _group(group: str, **columns: tuple[type | pa.DataType, str]) -> dict[str, Column]:
    return {
        name: Column(ARROW[kind] if isinstance(kind, type) else kind, group, text)
        for name, (kind, text) in columns.items()
    }


IDENTITY = _group(
    "identity",
    trial_id=(str, "digest of everything that changes the answer of this trial; unique in a results folder"),
    experiment=(str, "name of the experiment"),
    model=(str, "name of the architecture, such as fcn-512x5"),
    replicate=(int, "which of the models trained alike, from 0"),
    checkpoint=(str, "digest of what determines the trained weights (recipe and seed, or the file)"),
    data=(str, "revision of the evaluation data"),
    layer=(str, "name of the perturbed layer; null for the whole, unperturbed model (the baseline)"),
    perturbation=(str, "original, reinit (own theta_0 back), rerandomize (fresh draw), reinit_signs, permute, ..."),
    draw=(int, "which repetition of the perturbation, from 0"),
    seed=(int, "seed of the run; with checkpoint, layer, perturbation and draw it makes the trial's generator"),
    metrics=(str, "digest of the metrics asked for, their options and version"),
    own_code=(
        str,
        "digest of the code outside raylab that was run (perturbations, metrics, model, data); empty if none",
    ),
    protocol=(
        str,
        "digest of how it was perturbed and evaluated, where that is a choice (precision, biases, laws); else empty",
    ),
)
LAYER = _group(
    "layer",
    layer_index=(int, "position of the layer in the forward pass, from 0"),
    kind=(str, "kind of layer: linear, hf_conv1d, conv2d, embedding, ..."),
    N=(int, "longer side of the layer's matrix"),
    M=(int, "shorter side of the layer's matrix"),
    matrices=(int, "how many N x M matrices are pooled in the spectrum: slices of a convolution, blocks [count]"),
    origin=(str, "where the weights came from: a file, a library, a hub"),
    slice=(int, "which slice of a convolution, from 0 (conv=slices)"),
    reason=(str, "why a layer is skipped or has no power law, else null"),
)
OUTCOME = _group(
    "outcome",
    status=(str, "ok, failed (see error; run the same command again to retry) or skipped (error has the reason)"),
    error=(str, "traceback or reason of a failed trial, reason of a skipped one, else null"),
    seconds=(float, "work on this trial over all stages, without waiting [s]"),
    host=(str, "machine that did the work"),
)
EVALUATION = _group(
    "evaluation",
    accuracy=(float, "top-1 accuracy on the evaluation data [fraction, 0 to 1]"),
    top5=(float, "share of samples whose class is among the five most likely [fraction, 0 to 1]"),
    loss=(float, "mean cross-entropy on the evaluation data [nats]"),
    perplexity=(float, "exp of the cross-entropy summed over scored tokens, per token or word (see normaliser) [1]"),
    depth=(
        int,
        "of a model trained here: what its config calls depth (hidden layers of an FCN, layers of a ResNet, blocks of "
        "a transformer), else its layers with weights [count]",
    ),
    width=(
        int,
        "of a model trained here: what its config calls width (units of an FCN's hidden layers, channels of the first "
        "convolution), else the features that its last layer sees [count]",
    ),
    train_seconds=(
        float,
        "time it took to train the model, on its baseline row; 0 if it came from a checkpoint; where each epoch has "
        "its row, of the epoch [s]",
    ),
    num_samples=(int, "samples evaluated"),
)
# How the evaluation was done: the same in every row of a run.
PROTOCOL = _group(
    "evaluation",
    crop=(str, "how images were scaled and cropped: interpolation and side, side of the crop [pixels]; as stored"),
    subset=(str, "which part of the evaluation data: first N, spread N (every n/N-th), first N tokens; null: all"),
    context=(int, "tokens that the model sees at once [count]"),
    stride=(int, "from the beginning of a window of the text to that of the next; below context they overlap [tokens]"),
    joining=(str, "how rows became text: blank_lines (between rows), raw (as they lie), documents (each by itself)"),
    normaliser=(str, "what perplexity is per: token or word"),
    tokenizer=(str, "hub id of the tokenizer, or the name of its folder"),
    words=(
        int,
        "words of the text, between white space, times the share of its tokens that were scored [count]",
    ),
)
# How a given model was computed and perturbed.
HOW = _group(
    "evaluation",
    precision=(str, "what the model computed in: float32, tf32, bfloat16 or float16"),
    loss_error=(float, "on the baseline's row: its loss less that in float32, where it computed in less [nats]"),
    law=(str, "law that the layer's weights were initialised with, and are re-randomised from"),
    bias=(str, "whether the layer's bias goes with its weights: replaced, kept, or none"),
    buffers=(str, "what becomes of batch norm's statistics: kept, or none where there are none"),
    tied=(str, "other names of the layer's weights, which change along; null: none"),
)
# Of layers and models that are not trained.
INITIAL = _group(
    "evaluation",
    stands_for=(str, "names of the layers of this shape and law, which are drawn once for all of them"),
    alpha_range=(str, "range within which alpha of every layer of the model lies"),
    biases=(str, "drawn from the law they are initialised with, or zero"),
    pool_draw=(int, "which draw of the pool the layer's weights are, or were before training, from 0"),
)
# Of models that are trained with alpha fixed.
FIXED = _group(
    "evaluation",
    epoch=(int, "epochs trained so far; 0: the initial weights [count]"),
    retraction=(
        str,
        "how U and V of W = U S V^T are kept orthonormal; svd_projection: W is trained free and gets its singular "
        "values back once an epoch; free: never",
    ),
    train_loss=(
        float,
        "mean cross-entropy over the training samples of the epoch, each before its step; null for 0 [nats]",
    ),
    orthonormality=(
        float,
        "largest entry of |U^T U - I| and |V^T V - I| at the end of the epoch, before they were made orthonormal in "
        "float64; of the whole model: over its layers; null where W is trained free [1]",
    ),
    alpha_float32=(
        float,
        "alpha of the float32 weights that the epoch left, before its singular values were restored [1]",
    ),
)
SIMILARITY = _group(
    "similarity",
    activation_disagreement=(
        float,
        "share of the layer's ReLU activations that differ in being on or off from the original's [fraction]",
    ),
    js_divergence=(float, "mean Jensen-Shannon divergence of softmaxed layer outputs from the original's [nats]"),
    linear_cka=(float, "linear centred kernel alignment of the layer's output with the original's [0 to 1]"),
)
# A small layer's permuted control: its bulk needs more eigenvalues than one permutation gives.
_POOLED = " (below 100 eigenvalues: of five permutations pooled)"
_FIRST = " (one permutation; below 100 eigenvalues the first of five)"
SPECTRAL = _group(
    "spectral",
    alpha=(float, "exponent of the power law rho(lambda) ~ lambda^-alpha fitted to eigenvalues >= xmin [1]"),
    alpha_hat=(float, "alpha * log10(lambda_max), the weighted alpha [1]"),
    log_alpha_norm=(float, "log10 of the sum over all eigenvalues of lambda^alpha [1]"),
    log_norm=(float, "log10 of the sum of eigenvalues, which is the squared Frobenius norm [1]"),
    frobenius_norm=(float, "square root of the sum of eigenvalues [weight]"),
    spectral_norm=(float, "largest eigenvalue lambda_max, the square of the largest singular value [weight^2]"),
    log_spectral_norm=(float, "log10(lambda_max) [1]"),
    sigma_max=(float, "largest singular value of W [weight]"),
    stable_rank=(float, "sum of eigenvalues / lambda_max [1]"),
    entropy=(float, "-sum p ln p / ln(rank), p = lambda / sum of eigenvalues: 1 is flat [0 to 1]"),
    matrix_rank=(int, "singular values above sigma_max * N * 2.2e-16 [count]"),
    rank_loss=(int, "singular values that matrix_rank leaves out [count]"),
    mp_softrank=(float, "upper edge of the Marchenko-Pastur bulk / lambda_max [1]"),
    mp_sigma=(
        float,
        "sigma of the Marchenko-Pastur law fitted to the eigenvalues scaled to mean 1: near 1 if all is bulk, the same "
        "for 10 W as for W [1]",
    ),
    bulk_edge=(float, "upper edge lambda_plus of the Marchenko-Pastur bulk [weight^2]"),
    num_spikes=(
        int,
        "eigenvalues beyond the bulk: in the spectrum scaled to mean 1, above e + sqrt(sqrt(M/N) e^(2/3) M^(-2/3)), "
        "where e is bulk_edge in that scale and the root a Tracy-Widom width [count]",
    ),
    num_erg=(int, "detX number: eigenvalues in the tail whose rescaled product is one [count]"),
    erg_gap=(
        int,
        "num_erg - num_tail: how far the detX tail is from the power-law tail (farms: its share) [count]",
    ),
    rand_lambda_max=(float, f"largest eigenvalue of W with permuted entries{_POOLED} [weight^2]"),
    rand_softrank=(float, f"largest eigenvalue of W with permuted entries over that of W{_FIRST} [1]"),
    rand_maxdist=(float, f"largest eigenvalue of W less that of W with permuted entries{_FIRST} [weight^2]"),
    rand_distance=(
        float,
        f"Jensen-Shannon distance between the spectra of W and of W with permuted entries{_FIRST} [1]",
    ),
    rand_mp_softrank=(float, f"mp_softrank of W with permuted entries{_POOLED} [1]"),
    rand_mp_sigma=(float, f"mp_sigma of W with permuted entries{_POOLED} [1]"),
    rand_bulk_edge=(float, f"bulk_edge of W with permuted entries{_POOLED} [weight^2]"),
    num_traps=(
        int,
        f"correlation traps: num_spikes of W with permuted entries, above its random bulk{_POOLED} [count]",
    ),
)
_RATIO = "log-likelihood of the tail under the power law less that under"
_VUONG = "Vuong's p: probability of so large a ratio of either sign if both laws were as good; of "
# How good the fit behind alpha is: correlated on request, not as metrics of the model.
FIT = _group(
    "fit",
    xmin=(float, "smallest eigenvalue of the fitted tail [weight^2]"),
    xmax=(float, "largest eigenvalue; it does not truncate the fit [weight^2]"),
    D=(float, "Kolmogorov-Smirnov distance between the tail and the fitted power law [0 to 1]"),
    sigma=(float, "standard error of alpha, (alpha - 1) / sqrt(num_tail) [1]"),
    num_tail=(int, "eigenvalues >= xmin [count]"),
    fit_status=(str, "ok, or why there is no power-law fit"),
    estimator=(str, "which estimator of alpha: ks (Clauset et al. 2009), median, xmin_peak, farms, ..."),
    num_evals=(int, "eigenvalues of the layer [count]"),
    evals=(list, "the eigenvalues themselves, ascending [weight^2]"),
    metric_error=(str, "metrics that failed on this layer, each with its reason; null if none did"),
    alpha_lo=(float, "lower end of the confidence interval of alpha: percentiles of the bootstrap, xmin refitted [1]"),
    alpha_hi=(float, "upper end of that interval [1]"),
    alpha_se=(float, "standard deviation of alpha over the bootstrap [1]"),
    bootstrap_n=(int, "resamplings that could be fitted, of those asked for [count]"),
    gof_p=(
        float,
        "goodness of fit: share of samples of the fitted power law whose D, refitted, is at least that of the layer "
        "(Clauset et al. 2009, 4.1; below 0.1 a power law is implausible); known to 1 / (2 sqrt(gof_n)) [0 to 1]",
    ),
    gof_n=(int, "samples of the fitted power law that could be refitted, of those asked for [count]"),
    uncertainty_status=(str, "ok, or why there is no interval or p-value: that of the fit, or no_refits"),
    lognormal_ratio=(
        float,
        f"{_RATIO} a lognormal law; never positive, as the power law is its limit [nats]",
    ),
    lognormal_p=(float, f"{_VUONG}lognormal_ratio [0 to 1]"),
    exponential_ratio=(float, f"{_RATIO} an exponential law [nats]"),
    exponential_p=(float, f"{_VUONG}exponential_ratio [0 to 1]"),
    truncated_ratio=(
        float,
        f"{_RATIO} the power law with exponential cut-off; never positive [nats]",
    ),
    truncated_p=(float, "p of truncated_ratio: chi-squared, one degree of freedom [0 to 1]"),
    truncated_alpha=(float, "exponent of the power law with exponential cut-off, at least 0 [1]"),
    truncated_rate=(float, "its cut-off: density ~ x^-truncated_alpha exp(-truncated_rate x / xmin); 0 is none [1]"),
    best_law=(str, "law of the tail with the least AIC: power_law, lognormal, exponential or truncated"),
    alternatives_status=(str, "ok, or why there is no power-law fit to compare"),
    mp_status=(str, "ok, or why there is no Marchenko-Pastur fit"),
    rand_status=(str, "ok, or why there is no Marchenko-Pastur fit of W with permuted entries"),
)
PROVENANCE = _group(
    "provenance",
    config=(str, "digest of the resolved configuration (in full in run.json)"),
    code=(str, "version and commit of raylab"),
    versions=(str, "JSON text: versions of Python and the libraries that computed the row"),
    device=(str, "device of training and evaluation: cpu or cuda"),
    dtype=(str, "precision of the Gram matrix and its eigenvalues"),
    small_sample=(str, "rule of the fit below 20 eigenvalues: oracle or standard"),
    threshold=(float, "eigenvalues at or below it never enter a fit [weight^2, or a fraction of lambda_max]"),
    threshold_kind=(str, "absolute, or relative (to lambda_max)"),
    conv=(str, "treatment of convolutions: pooled, slices, reshape or fft"),
    groups=(str, "grouped convolutions: stored, as the tensor lies, or blocks, each group by itself"),
    split=(str, "fused tensors (q, k, v; gates): whole, or in parts"),
    started_at=(TIME, "when the run that made this row began (UTC)"),
    finished_at=(TIME, "when the row reached the driver (UTC)"),
)
KNOWN: Mapping[str, Column] = {
    **IDENTITY, **LAYER, **OUTCOME, **EVALUATION, **PROTOCOL, **HOW, **INITIAL, **FIXED, **SIMILARITY, **SPECTRAL,
    **FIT, **PROVENANCE,
}  # fmt: skip
