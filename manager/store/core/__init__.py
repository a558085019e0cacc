"""The database without its surroundings: what a command means, and nothing else."""
