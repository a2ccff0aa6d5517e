"""What `make bench` and `make bench-full` run."""
