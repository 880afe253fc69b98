"""Problems for the next embedded models: a stranger's words, and a split by phrasing.

They take the place of `dlmdecode.evals.arithmetic` and `dlmdecode.evals.functions`, whose problems
the present models know, together with the new weights.
"""
