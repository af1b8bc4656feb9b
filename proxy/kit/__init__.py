"""The kit for those who write filters: cases, traces, measurements, scaffolds; none of it needs a running gateway."""
