"""What is served without a token, written out by hand: a route opened by mistake in the product is not open here."""

OPEN = frozenset({
    "/health/live",  # supervisors ask, and have no token
    "/health/ready",  # load balancers ask too
    "/openapi.json",  # the document says nothing of the fleet
    "/asyncapi.json",  # the same of the topics
    "/asyncapi",  # the same as a page
    "/enroll",  # a device without identity: its claim is its credential
    "/oauth/device_authorization",  # a device without identity asks for a code
    "/oauth/token",  # it waits with that code
    "/.well-known/oauth-authorization-server",  # where the two above are (RFC 8414)
    "/pki/ca.crt",  # public certificates
    "/pki/chain.crt",  # public certificates
    "/pki/crl",  # whoever checks a certificate reads the list (RFC 5280)
    "/pki/crl.pem",  # the same for brokers
    "/pki/crl/{fingerprint}",  # the same of one authority
    "/pki/ocsp",  # whoever checks a certificate asks (RFC 6960)
    "/pki/ocsp/{question:path}",  # the same by GET
})  # fmt: skip
