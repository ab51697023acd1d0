"""What a trained model says: reports, samples, and the n-gram baseline."""
