"""gunicorn's arbiter and application, imported so that only our configuration steers them.

gunicorn reads variables that are meant for other servers when it is imported, and one that it cannot read ends that
with a traceback. They are put back afterwards.
"""

import os

from devhost_server.forks import FOREIGN_VARIABLES

_kept = {name: os.environ.pop(name) for name in FOREIGN_VARIABLES if name in os.environ}
try:
    from gunicorn import systemd
    from gunicorn.app.base import BaseApplication
    from gunicorn.arbiter import Arbiter
finally:
    os.environ.update(_kept)

__all__ = ["Arbiter", "BaseApplication", "systemd"]
