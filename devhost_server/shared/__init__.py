"""What processes share: the board of counts and states, and what the master publishes."""
