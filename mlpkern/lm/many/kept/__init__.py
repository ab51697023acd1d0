"""A population in a folder: its files, and how it continues."""
