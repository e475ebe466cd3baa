"""What a program prints never ends it: neither a narrow encoding nor a reader that has gone."""

import errno
import os
import sys
from typing import Any, TextIO, cast

# A pipe whose reader has ended (`| head`), and a terminal that was closed.
_READER_IS_GONE = {errno.EPIPE, errno.EIO, errno.ENXIO}


class _Output:
    """A stream that writes to nowhere once nobody reads it; in all else the stream that it is made of."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As of the stream."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def writelines(self, lines: Any) -> None:
        """As of the stream."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """As of the stream."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if error.errno not in _READER_IS_GONE:
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # what is still in buffers goes there too
        os.close(nowhere)


def configure_output() -> None:
    """Makes standard output and error write whatever is printed, as far as somebody reads it.

    A letter that the encoding does not have is written as its code, such as `\\xb2`. A closed pipe or terminal ends the
    output, not the program: training that was piped into `head` goes on.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, _Output) or not hasattr(stream, "reconfigure"):
            continue
        stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, cast(TextIO, _Output(stream)))


__all__ = ["configure_output"]
