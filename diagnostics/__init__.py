"""Measure a run and judge it."""
