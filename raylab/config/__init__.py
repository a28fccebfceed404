"""Configuration: the typed schema of conf/, how a command line becomes a Config, and which configs are one study.

The only user of Hydra. A typo in a key or a value of the wrong type ends here, in one line.
"""

from raylab.config.compose import compose
from raylab.config.folder import about, conf_dir, groups
from raylab.config.schema import ClusterConfig, Config, TrackingConfig, TuneConfig
from raylab.config.study import answer_digest, differences, study_digest
from raylab.config.sweeps import searched

__all__ = [
    "ClusterConfig",
    "Config",
    "TrackingConfig",
    "TuneConfig",
    "about",
    "answer_digest",
    "compose",
    "conf_dir",
    "differences",
    "groups",
    "searched",
    "study_digest",
]
