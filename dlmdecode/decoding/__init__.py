"""The heart: canvas, recipe and loop. It names no method."""
