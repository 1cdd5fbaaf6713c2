"""From ``csrc/`` and the recipe to packages."""
