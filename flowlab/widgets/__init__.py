"""Explorers: controls around plotting, one file a notebook family."""
