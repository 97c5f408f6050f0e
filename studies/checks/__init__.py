"""Checks of the library itself: correctness, densities, speed, precision, resuming, streaming, start-up."""
