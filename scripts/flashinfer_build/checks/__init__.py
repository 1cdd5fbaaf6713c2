"""What flashinfer's own packages and wheels have to be, beyond what holds for anybody's."""
