"""The HTTPS port of devices: client certificates, telemetry, enrollment (JSON, EST, SCEP), CRL and OCSP."""
