"""The submission to conda-forge: its form of the recipe, and the folder to submit."""
