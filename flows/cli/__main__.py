"""``python -m flows.cli`` is the command ``colorize-archive``."""

from flows.cli.app import main

if __name__ == "__main__":  # Dask's workers import this file too
    main()
