"""DiffuSpec's causal path search (arXiv 2510.02358) through the lattice of a draft."""
