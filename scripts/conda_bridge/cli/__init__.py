"""The program ``conda-bridge``: one module a subcommand."""
