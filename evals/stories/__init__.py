"""The sentences of the word problems: what happens to whom, and the words for it."""
