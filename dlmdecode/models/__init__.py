"""Model families, loading without remote code, and wrapping of anything else."""
