"""The processes of a gateway: master, control, workers, and what holds them together."""
