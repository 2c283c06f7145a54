"""Upstreams: targets, connection pool, balancing, retries."""
