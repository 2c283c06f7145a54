"""devhost-server: a team-shared staging gateway."""

__version__ = "0.1.0"
