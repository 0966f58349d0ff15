"""List all criteria by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from compressor.options import CriterionName
from compressor.score import activations, gradients, weight_norms
from compressor.score.criterion import Criterion
from compressor.score.fisher import fisher
from compressor.score.reconstruction import reconstruction

AUTO = "auto"

_LI = "Li et al. 2017, Pruning Filters for Efficient ConvNets (section 3.1"

CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {
        "reconstruction": Criterion(
            "what a least-squares re-fit of the consumers cannot make up for, per unit of cost",
            "Hassibi and Stork 1993, Optimal Brain Surgeon, for whole channels; cf. Frantar and "
            "Alistarh 2022, Optimal Brain Compression",
            reconstruction,
            needs="data",
            normalise="none",
        ),
        "l2": Criterion(
            "√Σw²: Euclidean norm of the channel's weights",
            f"{_LI}, with the L2 norm)",
            weight_norms.of_weights(weight_norms.norm(2)),
        ),
        "l1": Criterion(
            "Σ|w|: sum of the weights' magnitudes",
            f"{_LI})",
            weight_norms.of_weights(weight_norms.norm(1)),
        ),
        "lp": Criterion(
            "(Σ|w|^p)^(1/p), with p from --norm-p",
            "He et al. 2018, Soft Filter Pruning (equation 2)",
            weight_norms.lp,
        ),
        "lamp": Criterion(
            "Σw² as a share of all channels of the group that are not smaller",
            "Lee et al. 2021, Layer-adaptive Sparsity for the Magnitude-based Pruning",
            weight_norms.of_weights(weight_norms.squares),
            normalise="lamp",
        ),
        "geometric-median": Criterion(
            "distance of the filter to all others of its layer: what others cannot replace",
            "He et al. 2019, Filter Pruning via Geometric Median",
            weight_norms.of_weights(weight_norms.distances),
        ),
        "bn-scale": Criterion(
            "|γ| of the batch norm behind the channel",
            "Liu et al. 2017, Learning Efficient ConvNets through Network Slimming",
            weight_norms.batch_norm_scales,
        ),
        "gradient": Criterion(
            "Σ|g|: sum of the gradients' magnitudes",
            "Evci et al. 2020, Rigging the Lottery (what it grows by)",
            gradients.of_gradients(gradients.magnitude),
            needs="labels",
        ),
        "taylor": Criterion(
            "|Σw·g|: first-order change of the loss without the channel",
            "Molchanov et al. 2019, Importance Estimation for Neural Network Pruning (equation 8)",
            gradients.of_gradients(gradients.joint),
            needs="labels",
        ),
        "taylor-elementwise": Criterion(
            "Σ|w·g|: first-order changes of the loss, weight by weight",
            "Lee et al. 2019, SNIP (connection sensitivity), summed over the channel",
            gradients.of_gradients(gradients.element_wise),
            needs="labels",
        ),
        "fisher": Criterion(
            "mean over samples of (Σw·g)² at the consumers: how far the loss moves",
            "Theis et al. 2018, Faster Gaze Prediction with Dense Networks and Fisher Pruning; "
            "coupled as in Liu et al. 2021, Group Fisher Pruning",
            fisher,
            needs="labels",
        ),
        "activation": Criterion(
            "√E[x²]: root mean square of the activations that consumers are given",
            "Molchanov et al. 2017, Pruning ConvNets for Resource Efficient Inference",
            activations.of_activations(activations.root_mean_square),
            needs="data",
        ),
        "wanda": Criterion(
            "Σ|w|·‖x‖: the consumers' weights times the norm of what they are multiplied with",
            "Sun et al. 2023, A Simple and Effective Pruning Approach for Large Language Models",
            activations.of_activations(activations.weight_times_input),
            needs="data",
        ),
        "flap": Criterion(
            "Σw²·Var[x]: the consumers' weights times how much their inputs vary",
            "An et al. 2023, Fluctuation-based Adaptive Structured Pruning for Large Language "
            "Models (FLAP)",
            activations.of_activations(
                activations.fluctuation, (activations.mean_squares, activations.means)
            ),
            needs="data",
            normalise="standardise",
        ),
        "random": Criterion(
            "nothing: uniform random numbers",
            "Mittal et al. 2018, Recovering from Random Pruning",
            weight_norms.random,
            normalise="none",
        ),
    }
)
"""Name -> criterion; what is printed of each stands in the table too."""


def resolve(criterion: CriterionName, *, has_data: bool) -> CriterionName:
    """Return the criterion that "auto" stands for; any other is returned itself."""
    if criterion != AUTO:
        return criterion
    return "reconstruction" if has_data else "l2"
