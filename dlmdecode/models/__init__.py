"""LLaDA and Dream, loading without remote code, and wrapping of anything else."""
