"""Whole outputs, processes, progress and cost."""
