"""Requests out of frames: large ones one at a time, so that JSON made to be costly leaves others the interpreter.

Called by `listener`.
"""

import threading
import time

from mailer.errors import RequestError
from mailer.protocol import Request, decode_request
from mailer.transport.crew import stand_aside
from mailer.transport.door import busy

# A MiB of JSON made to be costly takes a tenth of a second to decode, and no other thread gets the interpreter then.
# So frames larger than _LARGE, which honest ones hardly are, are decoded one at a time, with a pause of _RESPITE times
# as long after each; while there are _MOST_LARGE of them, further ones are answered with `busy`.
_LARGE = 1 << 16  # bytes
_RESPITE = 2
_MOST_LARGE = 16


class Decoder:
    """Shared by all threads of a listener."""

    def __init__(self) -> None:
        self._places = threading.BoundedSemaphore(_MOST_LARGE)
        self._decoding = threading.Lock()  # held while a large frame is decoded

    def decode(self, payload: bytes) -> Request:
        """The request in a frame's payload; raises RequestError: `bad_request`, or `busy` when there are too many."""
        if len(payload) <= _LARGE:
            return decode_request(payload)
        stand_aside()
        if not self._places.acquire(blocking=False):
            raise RequestError(*busy().problems, retry=True)
        try:
            with self._decoding:
                began = time.monotonic()
                try:
                    return decode_request(payload)
                finally:
                    time.sleep(_RESPITE * (time.monotonic() - began))
        finally:
            self._places.release()
