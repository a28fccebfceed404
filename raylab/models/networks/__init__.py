"""Models that can be run.

`open_network` takes what `raylab.models.sources.open_model` takes, but for adapters, and knows the architecture from
the library's name or from a folder's config.json, or is told.
"""

from raylab.models.networks.network import Network, of_module
from raylab.models.networks.opening import open_network

__all__ = ["Network", "of_module", "open_network"]
