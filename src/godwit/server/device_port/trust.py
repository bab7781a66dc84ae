"""TLS of the port of devices: our certificate, and whose certificates clients may show. Made anew when that changes."""

import logging
import ssl

from godwit.contract.errors import RejectedError
from godwit.mqtt.tls import fleet_context
from godwit.server.identity.authorities import Authorities
from godwit.server.identity.model import Authority, AuthorityState, Change
from godwit.server.identity.news import News
from godwit.server.identity.server_certificate import ServerCertificate

log = logging.getLogger(__name__)


class Trust:
    """The context of new connections. Thread-safe: news come in the thread that writes."""

    def __init__(self, authorities: Authorities, certificate: ServerCertificate, *, minimum: str = "1.2") -> None:
        self._authorities, self._certificate, self._minimum = authorities, certificate, minimum
        self.context = self._make()

    def follow(self, news: News) -> None:
        """Trust from now on whoever is trusted."""
        news.on_change(self._heard)

    def reload(self) -> None:
        """Read the server's certificate anew, and who is trusted. What cannot be read leaves all as it was."""
        try:
            self.context = self._make()
        except (OSError, RejectedError) as error:
            log.warning("the port of devices keeps its old certificates: %s", error)

    def _heard(self, change: Change) -> None:
        if isinstance(change, Authority):
            self.reload()

    def _make(self) -> ssl.SSLContext:
        trusted = [each.certificate for each in self._authorities.all() if each.state is not AuthorityState.RETIRED]
        return fleet_context(*self._certificate, "\n".join(trusted), self._minimum)
