"""The wire: client and server connections, heads, bodies, tunnels, replies."""
