"""What all of the benchmark stands on: cases, providers, the timer, the check, the limits."""
