"""Stand-ins that let bench/gpu.sh run without a GPU."""
