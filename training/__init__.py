"""How the embedded models are made: data, tokenizer, objectives, evaluation."""
