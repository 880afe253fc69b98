"""Tasks with a grader, and the runner that puts samplers through them."""
