"""Indices over token texts that drafters look up, and trees grown from guesses."""
