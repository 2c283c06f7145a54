"""The gateway beside nginx, HAProxy, Caddy, Traefik, Envoy and the obvious Python alternatives."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from loadtests.comparing.cli import main

if __name__ == "__main__":
    main()
