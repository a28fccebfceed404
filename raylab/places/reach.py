"""Whether an error of a library says that a place is out of reach, rather than that it refuses.

What is out of reach is waited for, what refuses ends the run. In doubt it is the way: most errors of a file system far
away are, and whoever waits in vain learns why after a quarter of an hour, without having lost a row.
"""

from __future__ import annotations

import errno
from typing import Any

# OSErrors that waiting does not mend.
_REFUSED = (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError, FileNotFoundError)
_FINAL = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENAMETOOLONG, errno.EINVAL, errno.ENOTEMPTY,
    errno.ELOOP, errno.EXDEV, errno.EMLINK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMFILE,
}  # fmt: skip
_FORBIDDEN = "Forbidden"  # how gcsfs says 403: by an OSError of nothing but words
# Names, as the libraries need not be installed: aiohttp's, azure's, google-auth's and paramiko's of the network.
_OF_THE_WAY = {
    "ClientConnectionError", "ClientPayloadError", "ServiceRequestError", "ServiceResponseError", "TransportError",
    "SSHException",
}  # fmt: skip
_OF_RIGHTS = {"AuthenticationException", "BadHostKeyException"}  # which are of the above
_ANSWERS = ("status", "status_code", "code")


def is_of_the_way(error: BaseException) -> bool:
    """Whether it is the network or the server that fails, as far as the exceptions of so many libraries tell."""
    answer = _answer(error)
    if answer is not None:
        return answer >= 500 or answer in (408, 429)
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & _OF_THE_WAY:
        return not names & _OF_RIGHTS
    if not isinstance(error, OSError):
        return isinstance(error, EOFError)  # of a connection that is gone
    return not (isinstance(error, _REFUSED) or error.errno in _FINAL or str(error).startswith(_FORBIDDEN))


def _answer(error: Any) -> int | None:
    """What the server answered, in numbers of HTTP."""
    for each in (error, getattr(error, "response", None)):
        for name in _ANSWERS:
            answer = getattr(each, name, None)
            if isinstance(answer, int) and answer >= 400:
                return answer
    return None
