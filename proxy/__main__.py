"""`python -m proxy`: the `penstock` command without an installed script."""

from proxy.cli.main import main

if __name__ == "__main__":
    main(prog_name="penstock")
