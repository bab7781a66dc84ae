"""Bundles of devices that an operator enrolled, as this installation gives them out."""

from collections.abc import Iterable, Mapping

from godwit.contract.times import format_time
from godwit.server.identity import bundles
from godwit.server.identity.bundles import BundleConfig
from godwit.server.identity.model import Certificate
from godwit.server.identity.operators import Enrolled
from godwit.server.identity.room import Identity
from godwit.server.settings import Settings


def config_of(settings: Settings, identity: Identity, certificate: Certificate) -> BundleConfig:
    """Return what a bundle says of the platform."""
    return BundleConfig(
        certificate.device_id,
        certificate.tenant,
        identity.server.host,
        settings.mqtts_port,
        settings.device_port,
        format_time(certificate.not_after),
    )


def packed(
    settings: Settings, identity: Identity, done: Iterable[Enrolled], beside: Mapping[str, bytes] | None = None
) -> bytes:
    """Return bundles as a zip; `beside` them stand other files."""
    anchors = identity.authorities.anchors()
    made = {
        str(each.certificate.device_id): bundles.files_of(
            each.certificate.certificate, each.chain, anchors, config_of(settings, identity, each.certificate), each.key
        )
        for each in done
        if each.certificate is not None
    }
    return bundles.archive(made, beside or {})
