"""Everything that can go wrong, as one tree. A class exists because somebody acts on it.

ConvergedonError
├── Refused              what was asked can never succeed as it stands; the asker is told why
│   ├── Invalid              400  a body, parameter or file that does not say what it must
│   ├── Unauthenticated      401
│   ├── Forbidden            403  a policy said no, with its reasons
│   ├── NotFound             404
│   ├── MethodNotAllowed     405
│   ├── NotAcceptable        406
│   ├── TooSlow              408  a request that does not come to its end
│   ├── Conflict             409  it exists already, or its lifecycle has no such move
│   ├── PreconditionFailed   412
│   ├── TooLarge             413
│   ├── TooLong              414  the URL
│   ├── UnsupportedMediaType 415
│   ├── Unprocessable        422  well formed, but contradicts what was asked before
│   ├── TooManyRequests      429  the caller's share is used up for now
│   ├── HeadersTooLarge      431
│   └── Unsupported          501  the standard has it, this gateway has not
├── Stale                somebody else changed the record first: read it again
├── Unavailable          503  may succeed later: a caller retries, a message comes back with a delay
│   ├── Unreachable          nothing of the kind answers at the peer's address
│   ├── CredentialsRefused   it answers, and one of us does not trust the other
│   ├── Locked               somebody else holds it
│   ├── DeadlinePassed       there was no time left to begin
│   └── OutcomeUnknown       it was asked and did not answer: whether it did it must be found out
├── Findings             what a check found: shown a sentence a line
└── Misconfigured        the operator must change something: one sentence and a non-zero exit
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class ConvergedonError(Exception):
    """The root; its text is one sentence that a person can act on."""

    status = 500
    reason = "Internal Server Error"


class Refused(ConvergedonError):
    """What was asked can never succeed as it stands."""

    status = 400
    reason = "Bad Request"


class Invalid(Refused):
    pass


class Unauthenticated(Refused):
    status = 401
    reason = "Unauthorized"


class Forbidden(Refused):
    """A policy said no. ``reasons`` are its sentences, ``decision`` the id under which it is recorded."""

    status = 403
    reason = "Forbidden"

    def __init__(self, reasons: Sequence[str], decision: str | None = None) -> None:
        super().__init__("; ".join(reasons) or "no policy allows this")
        self.reasons = tuple(reasons)
        self.decision = decision


class NotFound(Refused):
    status = 404
    reason = "Not Found"


class MethodNotAllowed(Refused):
    status = 405
    reason = "Method Not Allowed"


class NotAcceptable(Refused):
    status = 406
    reason = "Not Acceptable"


class TooSlow(Refused):
    status = 408
    reason = "Request Timeout"


class Conflict(Refused):
    status = 409
    reason = "Conflict"


class PreconditionFailed(Refused):
    status = 412
    reason = "Precondition Failed"


class TooLarge(Refused):
    status = 413
    reason = "Content Too Large"


class TooLong(Refused):
    status = 414
    reason = "URI Too Long"


class UnsupportedMediaType(Refused):
    status = 415
    reason = "Unsupported Media Type"


class Unprocessable(Refused):
    status = 422
    reason = "Unprocessable Content"


class TooManyRequests(Refused):
    """``wait`` is how many seconds it takes until the next request is taken."""

    status = 429
    reason = "Too Many Requests"

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message)
        self.wait = wait


class HeadersTooLarge(Refused):
    status = 431
    reason = "Request Header Fields Too Large"


class Unsupported(Refused):
    """Well formed and meaningful, but outside of what is implemented; its text says which part."""

    status = 501
    reason = "Not Implemented"


class Stale(ConvergedonError):
    """The record's revision moved on between reading and writing."""

    status = 409
    reason = "Conflict"


class Unavailable(ConvergedonError):
    """A peer cannot be asked now. ``after`` is in how many seconds it wants to be asked again, where it said so."""

    status = 503
    reason = "Service Unavailable"

    def __init__(self, message: str = "", after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class Unreachable(Unavailable):
    pass


class CredentialsRefused(Unavailable):
    """Our credentials, or the key by which the peer says who it is."""


class Locked(Unavailable):
    pass


class DeadlinePassed(Unavailable):
    pass


class OutcomeUnknown(Unavailable):
    pass


class Findings(ConvergedonError):
    def __init__(self, sentences: Iterable[str]) -> None:
        self.sentences = tuple(sentences)
        super().__init__("; ".join(self.sentences))


class Misconfigured(ConvergedonError):
    pass


def body(status: int, reason: str, message: str) -> dict[str, str]:
    """A TM Forum Error body (TMF630 part 1: code and reason are mandatory, all values strings)."""
    return {"code": f"ERR{status}", "reason": reason, "message": message, "status": str(status), "@type": "Error"}
