"""The command line: what is asked for, and what a terminal shows."""
