"""What `python -m pipeline kernels new` writes: for each slot a kernel that runs as it is, to begin with."""
