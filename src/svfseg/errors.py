"""What a user can mend, told from what only we can: `InputError`, and nothing else.

The commands answer an `InputError` with one line and status 2, the service with status 422. Any
other exception is a bug of the program: a traceback, status 1, and status 500.
"""


class InputError(ValueError):
    """An input or a setting is wrong; the message says what was found, expected, and helps.

    Attributes:
        settings: names of the parameters that the message speaks of, such as "out"; a command
            adds its options of these names to the line.
    """

    def __init__(self, message: str = "", *, settings: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.settings = settings


class MissingFileError(InputError, FileNotFoundError):
    """A file, a folder or a repository that was named is not there."""
