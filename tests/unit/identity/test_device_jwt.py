"""What a device signs about itself is read with care: the device may be anybody who has its key."""

from time import time_ns

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import ECKey

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId, TenantId
from godwit.server.identity.device_keys import check_jwt
from godwit.server.identity.model import DeviceKey, KeyPurpose


@pytest.mark.parametrize(("issued", "ends"), [(1.5, 10**400), (10**400, 1e300), (float("-inf"), float("inf"))])
def test_times_that_no_float_holds_are_refused(issued, ends):
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    known = DeviceKey("k", DeviceId("pump-7"), TenantId("acme"), KeyPurpose.JWT, public.decode(), 1)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    claims = {"aud": "godwit", "iat": issued, "exp": ends}
    token = jwt.encode({"alg": "ES256"}, claims, ECKey.import_key(private.decode()))
    with pytest.raises(RejectedError) as refused:
        check_jwt([known], "pump-7", token, time_ns(), ("godwit",))
    assert refused.value.code == "jwt-malformed"
