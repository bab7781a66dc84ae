"""Whether a host is this machine: what may go there unencrypted, and needs no proof. Pure."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`. Of names only `localhost`: what `127.example.org` is, DNS says."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
