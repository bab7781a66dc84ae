"""The relational store under registry and accounts: engine, schema, migrations, the data directory's lock.

No use cases.
"""
