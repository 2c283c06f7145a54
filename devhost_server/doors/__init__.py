"""How requests come in, and how their answers go out."""
