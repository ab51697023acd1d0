"""The benchmark: one timer, one provider table per op, limits of the machine measured alongside."""
