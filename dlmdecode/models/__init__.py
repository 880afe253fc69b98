"""LLaDA, iLLaDA, Dream and SDAR, loading without remote code, and wrapping of anything else."""
