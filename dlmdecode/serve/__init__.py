"""`dlmdecode serve`: OpenAI's HTTP interface over engines, and a page that shows the canvas."""
