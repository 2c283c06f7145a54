"""What can be seen: scoreboard, metrics, logs."""
