"""Bundles of devices that an operator enrolled, as this installation gives them out."""

from collections.abc import Iterable

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


def files_of(settings: Settings, identity: Identity, done: Enrolled) -> dict[str, bytes]:
    """Return the files of a device that has its certificate."""
    assert done.certificate is not None
    config = config_of(settings, identity, done.certificate)
    anchors = identity.authorities.anchors()
    return bundles.files_of(done.certificate.certificate, done.chain, anchors, config, done.key)


def packed(settings: Settings, identity: Identity, done: Iterable[Enrolled]) -> bytes:
    """Return the bundles of those who have their certificates as a zip."""
    return bundles.archive(
        {
            str(each.device.device_id): files_of(settings, identity, each)
            for each in done
            if each.certificate is not None
        }
    )
