"""Methods that distil from noisy labels by what experts learn from, and by what the student is matched to."""
