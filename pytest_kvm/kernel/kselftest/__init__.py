"""The kernel's own test programs, as ``make -C tools/testing/selftests install`` leaves them."""
