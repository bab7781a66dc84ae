"""Do the notices of a rollover come back as they were said, and do devices say whom they trust?"""

import pytest

from godwit.contract import enrollment, notices, status
from godwit.contract.errors import MalformedError
from godwit.contract.notices import NewAuthorities, RenewalWanted

PRINT = "5f" * 32


def test_they_come_back_as_they_were_said() -> None:
    new, wanted = NewAuthorities(["-----BEGIN CERTIFICATE-----"], PRINT), RenewalWanted("rollover", PRINT, 7)
    for payload, said in (
        (notices.encode_new_authorities(new), new),
        (notices.encode_renewal_wanted(wanted), wanted),
        (notices.encode_renewal_wanted(RenewalWanted("operator")), RenewalWanted("operator")),
    ):
        assert notices.details_of(notices.decode(payload)) == said


def test_devices_name_whom_they_trust() -> None:
    asked = enrollment.EnrollmentRequest("pump-7", "-----BEGIN", trusts=[PRINT])
    assert enrollment.decode_request(enrollment.encode(asked)) == asked
    assert enrollment.decode_request(b'{"deviceId": "a", "request": "b"}').trusts == []
    assert status.decode(b'{"status": "online", "trusts": ["%s"]}' % PRINT.encode()).trusts == [PRINT]
    for wrong in (b'["5F"]', b'"%s"' % PRINT.encode(), b"[" + b",".join([b'"%s"' % PRINT.encode()] * 17) + b"]"):
        with pytest.raises(MalformedError):
            status.decode(b'{"status": "online", "trusts": %s}' % wrong)
