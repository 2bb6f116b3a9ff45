"""Which lines of a kernel do tests run: the counters of CONFIG_GCOV_KERNEL, made into a tracefile of lcov's."""
