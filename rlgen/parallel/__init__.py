"""Seeds, slots and devices as axes of one program."""
