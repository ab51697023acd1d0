"""What bench/gpu.sh runs."""
