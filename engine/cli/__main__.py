"""Run the command line: ``python -m engine.cli``."""

from engine.cli import main

if __name__ == "__main__":
    main()
