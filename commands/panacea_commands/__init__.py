"""The `panacea` command: one module per group of commands. Nothing imports this package."""
