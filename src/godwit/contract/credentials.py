"""Words that devices say of themselves at the doors of a platform, in CONNECT and in what they sign."""

from typing import Final

AUDIENCE: Final = "godwit"
"""What a platform is called in a device's JWT (`aud`), unless its setting JWT_AUDIENCE says otherwise."""
RENEWAL_USER: Final = "renewal"
"""The user name of a client that wants nothing but to renew its certificate, which may have ended.

Who does not say it is refused as ever: a client that does not know of grace is not left talking to nobody.
"""
