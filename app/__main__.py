"""`python -m app`: the command line."""

from app.cli.interrupts import ends_at_once

if __name__ == "__main__":
    with ends_at_once():
        from app.cli.main import main
    main()
