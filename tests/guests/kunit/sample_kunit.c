// SPDX-License-Identifier: MIT
/* Cases of all kinds, for tests of what runs them. */
#include <kunit/test.h>
#include <linux/module.h>

static void adds(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, 2 + 2, 4);
}

static void fails(struct kunit *test)
{
	kunit_info(test, "about to fail\n");
	KUNIT_EXPECT_EQ_MSG(test, 2 + 2, 5, "arithmetic");
}

static void skips(struct kunit *test)
{
	kunit_skip(test, "no hardware");
}

static const int numbers[] = { 2, 4, 5 };

static void describe(const int *number, char *text)
{
	snprintf(text, KUNIT_PARAM_DESC_SIZE, "number %d", *number);
}
KUNIT_ARRAY_PARAM(number, numbers, describe);

static void is_even(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, *(const int *)test->param_value % 2, 0);
}

static void crashes(struct kunit *test)
{
	kunit_info(test, "for a while\n");
#ifdef CRASH
	panic("sample crashes");
#endif
}

static void last(struct kunit *test)
{
}

static struct kunit_case first_cases[] = {
	KUNIT_CASE(adds), KUNIT_CASE(fails), KUNIT_CASE(skips),
	KUNIT_CASE_PARAM(is_even, number_gen_params), {}
};
static struct kunit_suite first = { .name = "first", .test_cases = first_cases };
static struct kunit_case second_cases[] = { KUNIT_CASE(crashes), KUNIT_CASE(last), {} };
static struct kunit_suite second = { .name = "second", .test_cases = second_cases };
kunit_test_suites(&first, &second);
MODULE_LICENSE("GPL");
