"""Who devices are: authorities, certificates, claims and other credentials, enrollment, revocation.

People and programs of the owner are the business of `accounts`; what a device may do is decided in `broker.rights`.
"""
