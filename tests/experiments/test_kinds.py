"""What an experiment would not read is refused, not passed over."""

import pytest

from raylab import config, experiments
from raylab.errors import UserError


@pytest.mark.parametrize("override", ["precision=bfloat16", "biases=kept"])
def test_knobs_of_given_models_are_refused_elsewhere(override):
    composed, _ = config.compose(["experiment=digits", override], None)
    with pytest.raises(UserError, match="for kind=perturb_pretrained: kind=perturb_layers would not read them"):
        experiments.build(composed)
