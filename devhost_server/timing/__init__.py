"""When something is due, in what order, and who has had enough."""
