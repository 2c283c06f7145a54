"""What is done to sockets below their transports."""
