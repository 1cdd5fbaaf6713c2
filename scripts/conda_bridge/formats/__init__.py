"""Conda packages, wheels, tar, zip, ELF and fat binaries."""
