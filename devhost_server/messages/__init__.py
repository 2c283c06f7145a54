"""Bytes to facts and back, without I/O: heads, bodies, what is said about others, and pages."""
