"""The notebooks in other forms: slides for a lecture, a book to read."""
