/* A driver that does no harm. */
#include <linux/module.h>

static bool on;
module_param(on, bool, 0644);
MODULE_PARM_DESC(on, "whether it is lit");

static int __init lamp_init(void)
{
	pr_info("lamp is %s\n", on ? "on" : "off");
	return 0;
}

static void __exit lamp_exit(void)
{
}

module_init(lamp_init);
module_exit(lamp_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("a lamp");
