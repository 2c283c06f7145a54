"""The processes as an operator meets them: starting, dying, reloading, draining, and what they cost and count."""
