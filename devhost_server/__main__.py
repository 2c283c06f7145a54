"""``python -m devhost_server``."""

from devhost_server.cli import main

if __name__ == "__main__":
    main()
