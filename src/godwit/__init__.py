"""godwit: a self-hosted IoT platform.

Devices work alone while the network is away; everything they measured arrives.
"""

__version__ = "0.1.0"
