"""Who a peer is: the server's own certificate now; issuance, revocation and enrollment later."""
