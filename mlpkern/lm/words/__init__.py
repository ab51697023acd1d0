"""From a text to windows of ids: reading, splitting, symbols, and the names that come along."""
