"""Errors that a user can mend: `InputError` and its subclasses.

The commands answer an `InputError` with one line and status 2, the service with status 422. Any
other exception is a bug of the program: a traceback, status 1, and status 500.
"""


class InputError(ValueError):
    """An input or a setting is wrong; the message says what was expected, and what to do.

    Attributes:
        settings: names of the parameters that the message is about, such as "out"; a command
            adds its options of these names to the line.
    """

    def __init__(self, message: str = "", *, settings: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.settings = settings


class MissingFileError(InputError, FileNotFoundError):
    """A file, a folder or a repository that was named is not there."""
