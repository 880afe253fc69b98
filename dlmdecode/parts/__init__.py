"""Parts that two samplers or more are made of; those of one sampler are in its file."""
