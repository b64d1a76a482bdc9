"""Run the command line as ``python -m svfseg``."""

from svfseg.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
