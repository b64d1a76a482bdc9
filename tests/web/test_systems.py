"""The web modules on systems that lack what Unix has."""

import subprocess
import sys
from pathlib import Path

import svfseg

PACKAGE = Path(svfseg.__file__).parent
SCRIPT = """
import importlib, sys
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for module in {modules}:
    importlib.import_module(module)
"""


def test_all_modules_are_imported_without_what_only_unix_has() -> None:
    modules = ["svfseg.cli.web"]
    for path in sorted((PACKAGE / "web").rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        modules.append(".".join(("svfseg", *parts)).removesuffix(".__init__"))
    assert "svfseg.web.project" in modules
    script = SCRIPT.format(modules=modules)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
