/* A module that does what is written into its parameter: n(ull), w(arning) or p(anic). */
#include <linux/module.h>
#include <linux/panic.h>

static int *nowhere;

static __always_inline void poke(int value)
{
	*(volatile int *)nowhere = value; /* the store */
}

static noinline int null(int value)
{
	poke(value); /* the inlined call */
	return 0;
}

static noinline __cold int warn(void)
{
	WARN_ON(1); /* the warning */
	return 0;
}

static noinline void fail(void)
{
	panic("asked for"); /* does not return */
}

static int set(const char *value, const struct kernel_param *param)
{
	if (value[0] == 'n')
		null(value[0]); /* the call */
	if (value[0] == 'w')
		warn();
	if (value[0] == 'p')
		fail(); /* the last call */
	barrier();
	return 0;
}

static const struct kernel_param_ops ops = { .set = set };
module_param_cb(what, &ops, NULL, 0200);
MODULE_LICENSE("GPL");
