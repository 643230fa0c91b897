"""What is tried again, for how long, and what is not: storage that does not answer, against storage that refuses."""

from __future__ import annotations

import errno
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ddnl_ray.errors import RequestError, StorageError

T = TypeVar("T")

_REFUSED = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|MISSING_AUTHENTICATION_TOKEN|"
    r"INVALID_CLIENT_TOKEN_ID|UNRECOGNIZED_CLIENT|INVALID_SIGNATURE|EXPIRED_?TOKEN|REQUEST_EXPIRED|"
    r"PERMISSION_DENIED|UNAUTHENTICATED|HTTP status (30\d|400|401|403)|no credentials",
    re.IGNORECASE,
)
_LOCAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""What goes wrong on this machine while a file is read or written."""


@dataclass(frozen=True)
class Patience:
    """How long storage may stay away.

    Attributes:
        total_s: Seconds after which an operation is given up.
        first_s: Seconds before the second try; each further wait is twice as long.
        longest_s: The longest wait between two tries.
        clock: Monotonic seconds.
        sleep: Waits for some seconds.
    """

    total_s: float = 300.0
    first_s: float = 0.5
    longest_s: float = 30.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def persist(self, place: str, doing: str, action: Callable[[], T]) -> T:
        """Do something with storage, again and again until it answers.

        Args:
            place: The address, for messages.
            doing: The operation, for messages (``write x.json``).
            action: What to do; it may be done several times.

        Raises:
            FileNotFoundError: There is no such object.
            RequestError: Storage refuses: no such bucket, no right to it, wrong credentials.
            StorageError: Storage has not answered for ``total_s`` seconds.
        """
        began, wait = self.clock(), self.first_s
        while True:
            try:
                return action()
            except FileNotFoundError:
                raise
            except OSError as error:
                if error.errno in _LOCAL:
                    raise
                if is_refusal(error):
                    raise RequestError(
                        f"{place} refuses to {doing}: {error}. Check the bucket's name and region, and the credentials "
                        "that this machine has for it"
                    ) from error
                left = self.total_s - (self.clock() - began)
                if left <= 0:
                    raise StorageError(
                        f"{place} does not answer when asked to {doing}, tried for {self.total_s:g} s: {error}. "
                        "What has been stored is safe; check the network, then run the same command again"
                    ) from error
                # Workers that lost the same storage should not all come back at the same moment.
                self.sleep(min(left, wait * random.SystemRandom().uniform(0.5, 1.0)))
                wait = min(2 * wait, self.longest_s)


def is_refusal(error: OSError) -> bool:
    """Return whether storage has answered, and said no."""
    return isinstance(error, PermissionError) or _REFUSED.search(str(error)) is not None
