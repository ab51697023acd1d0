"""What a run keeps on disk: its folder, log and checkpoints."""
