"""Many builds: planned, run, reported, handed to CI."""
