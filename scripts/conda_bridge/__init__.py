"""The library that every program in ``scripts/`` and ``setup.py`` share.

Each module holds one concept; arrows between them point one way: pins -> toolchain -> payload ->
conda package -> wheel -> channel and index -> installed and tried.
"""
