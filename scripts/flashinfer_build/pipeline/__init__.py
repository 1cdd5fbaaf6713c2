"""One build: its stages, and what each stage's key is made of."""
