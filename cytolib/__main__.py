"""``python -m cytolib``: the command line where no script ``cytolib`` was installed."""

import sys

from cytolib.cli import main

if __name__ == "__main__":
    sys.exit(main())
