"""Bodies and answers of devices that are registered with a certificate of their own authority, in the seeds' words."""

from typing import Any, Final, Literal

from pydantic import ConfigDict, Field

from godwit.contract.ids import DEVICE_ID_PATTERN, DeviceId
from godwit.server.accounts.principal import Principal
from godwit.server.api.answers import device_document, time_or_none
from godwit.server.api.strict import Body
from godwit.server.identity.model import Certificate
from godwit.server.identity.vouched import Vouched
from godwit.server.registry.model import Device, Lifecycle

PEM_MAX: Final = 65_536
_STATUS: Final = {
    "active": Lifecycle.ACTIVE, "inactive": Lifecycle.SUSPENDED, "suspended": Lifecycle.SUSPENDED
}  # fmt: skip


class VouchedDevice(Body):
    """A device with a certificate of an authority that its tenant trusts."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"device_id": "pump-7", "certificate": "-----BEGIN CERTIFICATE-----", "status": "active"}]
        },
    )
    device_id: str = Field(pattern=f"^{DEVICE_ID_PATTERN}$")
    certificate: str = Field(max_length=PEM_MAX)
    status: Literal["active", "inactive", "suspended"] = "active"


def register(vouched: Vouched, body: VouchedDevice, who: Principal) -> dict[str, Any]:
    """Register a device with its certificate, and return what is answered."""
    return document(*vouched.register(who, DeviceId(body.device_id), body.certificate, _STATUS[body.status]))


def document(device: Device, certificate: Certificate) -> dict[str, Any]:
    """Return a device in the seeds' words beside ours."""
    return {
        **device_document(device, None),
        "device_id": device.device_id,
        "status": str(device.lifecycle),
        "certificate": {
            "fingerprint": certificate.fingerprint,
            "state": str(certificate.state),
            "notAfter": time_or_none(certificate.not_after),
        },
    }
