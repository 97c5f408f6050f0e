"""The detector: a density with a threshold whose false-alarm rate holds, for tables and pictures."""
