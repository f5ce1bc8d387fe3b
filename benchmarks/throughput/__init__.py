"""The parts of `benchmarks/trainer_throughput.py`."""
