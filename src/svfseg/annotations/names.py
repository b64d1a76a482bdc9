"""Check the names that people give to classes."""

from collections.abc import Sequence

from svfseg.errors import InputError


def class_names(names: Sequence[str]) -> tuple[str, ...]:
    """Check names of classes, and strip blanks around them.

    Args:
        names: as given, in the order of the ids 1, 2 ...

    Raises:
        InputError: none, more than 254, one that is empty or holds a line break or what no text
            holds, or one name twice.

    Example:
        >>> class_names([" crack ", "leaf"])
        ('crack', 'leaf')
    """
    cleaned = tuple(str(name).strip() for name in names)
    if not cleaned:
        raise InputError("there are no names of classes: give one or more", settings=("classes",))
    if len(cleaned) > 254:
        raise InputError(f"found {len(cleaned)} classes: expected at most 254")
    for name in cleaned:
        if not name:
            raise InputError("a class has an empty name: give each a name", settings=("classes",))
        if any(not each.isprintable() for each in name):
            raise InputError(
                f"the class {name!r} holds a line break or another character that cannot be "
                "printed: give it another name", settings=("classes",),
            )  # fmt: skip
    doubled = next((name for name in cleaned if cleaned.count(name) > 1), None)
    if doubled is not None:
        raise InputError(f"two classes are called {doubled}: expected different names",
                         settings=("classes",))  # fmt: skip
    return cleaned
