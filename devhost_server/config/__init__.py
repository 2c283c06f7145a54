"""What the YAML may say: layers, expansion, origins, models.

`Sources` says where to look, `load` reads, merges, expands, validates and resolves, and gives `Loaded` or raises
`ConfigError` with everything that is wrong. Loading never changes anything: it can be repeated at any time.
"""

from devhost_server.config.layers import Sources
from devhost_server.config.load import Loaded, load, load_admin
from devhost_server.config.models import Settings
from devhost_server.config.problems import DEFAULT, ConfigError, Origin, Problem

__all__ = ["DEFAULT", "ConfigError", "Loaded", "Origin", "Problem", "Settings", "Sources", "load", "load_admin"]
