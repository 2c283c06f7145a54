"""The application object that gunicorn's arbiter and workers share."""

from devhost_server.config import Settings
from devhost_server.observe import logs
from devhost_server.processes.arbiter import BaseApplication
from devhost_server.processes.master import Master
from devhost_server.processes.worker import GatewayWorker
from devhost_server.shared.board import Scoreboard
from devhost_server.shared.publication import Publication
from devhost_server.sockets.listeners import BACKLOG


class GatewayApplication(BaseApplication):  # type: ignore[misc] # gunicorn is not typed
    """The application, as gunicorn calls it: what the workers find after the fork."""

    def __init__(self, settings: Settings, scoreboard: Scoreboard, publication: Publication, workers: int) -> None:
        self._settings = settings
        self._workers = workers
        self.scoreboard = scoreboard
        self.publication = publication
        super().__init__(prog="devhost-server")

    def load_config(self) -> None:
        """Set gunicorn's options; all its other options are off or without effect here."""
        for name, value in {
            "bind": list(self._settings.server.bind),
            "workers": self._workers,
            "worker_class": GatewayWorker,
            "backlog": BACKLOG,
            "control_socket_disable": True,
            "reuse_port": False,
            "proc_name": "devhost-server",
            "logger_class": logs.ArbiterLog,
            "pre_fork": Master.before_fork,
            "post_fork": Master.after_fork,
            "child_exit": Master.after_exit,
        }.items():
            self.cfg.set(name, value)

    def load(self) -> None:
        """Load nothing: a worker serves what has been published."""
