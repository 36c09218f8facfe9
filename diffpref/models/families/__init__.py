"""One file a model family; the file's name is the family's name in recipes."""
