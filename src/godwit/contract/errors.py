"""Errors, typed by who must act.

`MalformedError`: the peer sent rubbish; it goes to quarantine and is never retried. `RejectedError`: we refuse and say
why. `UnavailableError`: retry with backoff. Anything else is a bug and ends its task loudly. Every error carries a
stable `code` (kebab-case), which clients, the ledger and the quarantine page show.
"""


class GodwitError(Exception):
    """The request could not be carried out."""

    code = "error"

    def __init__(self, message: str | None = None, *, code: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)
        if code is not None:
            self.code = code


class MalformedError(GodwitError):
    """The message cannot be read."""

    code = "malformed"


class RejectedError(GodwitError):
    """The request is refused."""

    code = "rejected"


class UnavailableError(GodwitError):
    """The service is not available now; try again later."""

    code = "unavailable"
