"""Which tenants, types, devices and groups there are, and who is there. Every access to a device passes `access.py`."""
