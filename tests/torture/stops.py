"""Stop a piece of work at its n-th operation on files: by a kill, or by a disk that is full."""

import contextlib
import os
import sqlite3
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from svfseg.errors import InputError

KILLED, REFUSED, FAILED = 9, 2, 1
# Operations on files that Python tells an audit hook of, besides opening them to write.
OPERATIONS = frozenset({"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate",
                        "os.chmod"})  # fmt: skip
Work = Callable[[], object]
Stop = Callable[[], None]


def kill() -> None:
    """End the process as `kill -9` does."""
    os._exit(KILLED)


def die_in(sql: sqlite3.Connection, number: int) -> None:
    """End the process at a statement of a database, from 0."""
    seen = 0

    def count(_: str) -> None:
        nonlocal seen
        seen += 1
        if seen - 1 == number:
            kill()

    sql.set_trace_callback(count)


def fill_disk() -> None:
    """From now on no file is longer than 3000 bytes, so that what is longer is written in part.

    So it is on a disk that is nearly full: a write says that it wrote less than was asked, which
    not every library looks at; the next one fails. Python ignores the signal.
    """
    import resource  # Windows has neither this nor fork

    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def stopped_at(number: int | None, work: Work, stop: Stop = kill, trace: bool = True) -> int:
    """Do work in a process of its own, stop it at an operation, and give its status.

    Args:
        number: which operation, from 0; None stops it at none.
        work: what is done.
        stop: how it is stopped.
        trace: print the traceback of a failure.

    Returns:
        0 where it came to its end, KILLED, REFUSED (one line), or FAILED (a traceback).
    """
    sys.stdout.flush()
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    seen = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in OPERATIONS or (event == "open" and _writes(arguments)):
            seen += 1
            if seen - 1 == number:
                stop()

    status = FAILED
    sys.addaudithook(count)
    try:
        if number is None or not trace:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
                work()
        else:
            work()
        status = 0
    except InputError:
        status = REFUSED
    except OSError:
        status = REFUSED  # the command line makes one line of it
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else FAILED
    except BaseException:
        if trace:
            traceback.print_exc()
    os._exit(status)


def each_stop(work: Callable[[int], Work], stop: Stop = kill, step: int = 1, first: int = 0,
              most: int = 10_000) -> Iterator[tuple[int, int]]:  # fmt: skip
    """Stop fresh copies of a work at one operation after the other, until one comes to its end.

    Args:
        work: gives the work of the copy with a number.
        stop: how it is stopped.
        step: how many operations further the next stop is.
        first: number of the first one.
        most: largest number.

    Yields:
        The number of the operation, and the status of the work; the last one is 0.
    """
    for number in range(first, most, step):
        status = stopped_at(number, work(number), stop)
        yield number, status
        if status == 0 and stop is kill:
            return


def count_operations(work: Work) -> int:
    """Give the number of operations on files of a work."""
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        seen = 0

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            seen += event in OPERATIONS or (event == "open" and _writes(arguments))

        sys.addaudithook(count)
        with contextlib.suppress(BaseException):
            work()
        os.write(writer, str(seen).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(process, 0)
    with os.fdopen(reader) as file:
        return int(file.read() or 0)


def _writes(arguments: tuple[Any, ...]) -> bool:
    """Whether an "open" of the audit hook is one to write a file."""
    path, mode, flags = arguments
    if isinstance(path, (str, bytes)) and os.fsencode(path).startswith((b"/dev/", b"/proc/")):
        return False
    if isinstance(mode, str) and any(letter in mode for letter in "wax+"):
        return True
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
