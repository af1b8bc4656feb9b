"""The filters that the benchmarks run, and how they are built."""
