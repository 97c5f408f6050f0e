"""The commands, a file each: its options as a dataclass, and `run(arguments)`. Heavy imports wait inside the functions."""
