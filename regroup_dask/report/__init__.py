"""Plots and the page a person reads."""
