"""Certificates for servers under test: an authority of its own, made once a test run."""

import functools
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


class Authority:
    """A certificate authority; `file` is what has to be trusted, as in `SSL_CERT_FILE`."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="devhost-ca-")
        self._ca = trustme.CA()
        self.file = Path(self._directory.name) / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    @functools.cache  # noqa: B019 - there is one authority a run
    def context(self, *names: str, expired: bool = False) -> ssl.SSLContext:
        """Return the context of a server whose certificate is for these names."""
        end = datetime.now(UTC) - timedelta(days=1) if expired else None
        begin = datetime.now(UTC) - timedelta(days=2) if expired else None
        certificate = self._ca.issue_cert(
            *(names or ("localhost", "127.0.0.1", "::1")), not_before=begin, not_after=end
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        return context


@functools.cache
def authority() -> Authority:
    """Return the authority of this test run."""
    return Authority()


@functools.cache
def stranger() -> Authority:
    """Return an authority that nobody trusts."""
    return Authority()
