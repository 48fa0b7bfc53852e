"""`python -m panacea_commands` is the `panacea` command."""

from panacea_commands.main import main

if __name__ == "__main__":
    main()
