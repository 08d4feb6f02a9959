"""A certificate for a machine with an NVIDIA GPU: see ``python -m tests.benchmarks.gpu --help``."""
