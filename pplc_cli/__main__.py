"""``python -m pplc_cli`` is ``pplc``."""

from pplc_cli.cli.main import main

if __name__ == "__main__":
    main()
