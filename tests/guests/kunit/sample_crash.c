// SPDX-License-Identifier: MIT
/* The same, and it crashes in the middle. */
#define CRASH
#include "sample_kunit.c"
