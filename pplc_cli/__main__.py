"""``python -m pplc_cli`` is ``pplc``."""

from .cli import main

if __name__ == "__main__":
    main()
