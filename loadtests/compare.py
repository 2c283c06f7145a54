"""The gateway beside nginx, HAProxy, Caddy, Traefik, Envoy and the obvious Python alternatives."""

from comparing.cli import main

if __name__ == "__main__":
    main()
