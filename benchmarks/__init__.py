"""Benchmarks: each one a command, `python -m benchmarks.NAME --out FILE.json`."""
