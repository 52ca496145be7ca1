"""Seeds, slots and devices as array axes of one compiled program."""
