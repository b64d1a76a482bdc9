"""Run svfseg commands as in an environment that holds the wheel and its dependencies alone.

    python -S -E bare.py FILE

FILE is JSON: "wheel", the folder of the unpacked wheel; "modules", the top-level modules that may
be imported; "site", the folders of installed distributions; "commands", lists of words. A line of
JSON per command goes to the standard output: its status, and what it wrote.
"""

import contextlib
import importlib.machinery
import io
import json
import sys
from pathlib import Path


class Hiding(importlib.machinery.PathFinder):
    """Finds what PathFinder finds, but for distributions outside the closure."""

    modules: frozenset[str] = frozenset()
    site: tuple[str, ...] = ()

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = super().find_spec(name, path, target)
        if spec is None or path is not None or name in cls.modules:
            return spec
        places = [spec.origin or "", *(spec.submodule_search_locations or ())]
        return None if any(place.startswith(cls.site) for place in places) else spec


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Hiding.modules, Hiding.site = frozenset(plan["modules"]), tuple(plan["site"])
    sys.meta_path = [
        Hiding if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path
    ]
    # the folder of this script is not on an installed program's path
    sys.path[:] = [plan["wheel"], *sys.path[1:], *plan["site"]]
    import svfseg
    from svfseg.cli import main as run

    assert Path(svfseg.__file__).is_relative_to(plan["wheel"]), svfseg.__file__
    for words in plan["commands"]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = run(words)
            except SystemExit as stop:
                status = stop.code or 0
        answer = {"status": status, "out": out.getvalue(), "err": err.getvalue()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
