"""From a text file to windows of ids: reading, splitting, vocabularies, and a list of names."""
