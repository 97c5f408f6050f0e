"""Studies: each one a command, `python -m studies.NAME --out FILE.json`."""
