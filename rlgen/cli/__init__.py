"""Command line of rlgen."""
