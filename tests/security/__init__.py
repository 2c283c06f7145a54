"""Real servers behind the gateway: one user's bytes must never become another's (see README.md)."""
