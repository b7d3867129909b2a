"""Lets ``python -m stageline`` do what the command ``stageline`` does."""

from stageline.cli import main

if __name__ == "__main__":
    main(prog_name="stageline")
