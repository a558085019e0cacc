"""The benchmarks: programs that measure Skep and print what they measured."""
