"""Which function a report is about."""

from __future__ import annotations

import re
from collections.abc import Iterable

FUNCTION = r"[A-Za-z_$][\w.$]*"
# The instruction that was executed (x86, arm64, arm, RISC-V, PowerPC, s390), and a frame of a call trace, to which some
# add addresses. A frame with a question mark is what happened to be on the stack.
_PLACE = re.compile(
    r"(?:RIP: \w+:|EIP: |[Pp][Cc] : |PC is at |epc : |NIP \[\w+\] |Krnl PSW : \w+ \w+ \()?"
    rf"(?:kmemleak:)?\s*(?:\[<?[0-9a-f]{{8,}}>?\]\s+)*(?:\([\w<>\[\]]+\) )?({FUNCTION})\+0x[0-9a-f]+\b|"
    rf"\s*(?:\[<[0-9a-f]+>\] \(({FUNCTION})\)|({FUNCTION})) from (?:\[<[0-9a-f]+>\] \(|{FUNCTION}\+0x)"
)
# What compilers append to the name of a function.
_SUFFIX = re.compile(r"(?:\.(?:isra|constprop|part|cold|llvm|lto_priv)(?:\.\d+)*)+\Z|\.\d+\Z")

# Those that make a report, that catch the exception, and that lead to them.
_REPORTING = r"""
dump_stack\w*|show_(?:stack|trace|regs)\w*|dump_backtrace\w*|walk_stackframe|unwind_backtrace|_?sched_show_task
(?:__)?warn\w*|report_(?:bug|cfi\w*)|__report_bug|handle_bug|bug_handler|(?:nmi_|v)?panic\w*|(?:__)?die\w*|oops_\w+
do_exit|make_task_dead|rewind_stack\w*|no_context|(?:arm64?_)?notify_die|page_fault_oops|(?:__)?bad_area\w*
(?:kernelmode_)?fixup_or_oops|handle_page_fault|(?:__)?do_(?:page|kern_addr|user_addr|kernel)_fault|page_fault
(?:a?sm_)?(?:exc|sysvec)_\w+|asm_\w+|invalid_op|general_protection|double_fault|divide_error|error_(?:entry|exit)
do_(?:error_trap|trap\w*|invalid_op|general_protection|int3|divide_error|mem_abort|translation_fault|bad_area)
do_(?:sp_pc_abort|undefinstr|DataAbort|PrefetchAbort|debug_exception)|ret_from_exception|common_interrupt\w*
fixup_exception|__do_kernel_fault|do_tag_\w+|el[01]t?_\w+|el[01]t?h?_64_\w+|vectors|brk_handler|call_break_hook|debug_exception_enter
__(?:dabt|pabt|irq|und)_(?:svc|usr|invalid)|(?:__)?might_(?:sleep|resched|fault)\w*|__schedule_bug
__cant_(?:sleep|migrate)|schedule_debug|check_preemption_disabled|__this_cpu_preempt_check|debug_smp_processor_id
check_panic_on_warn|print_\w*(?:bug|report|warning|description|header)|bad_page\w*|free_page_is_bad\w*
__ubsan_\w+|ubsan_\w+|handle_overflow|kcsan_\w+|__(?:tsan|kcsan)_\w+|kmsan_\w+|__msan_\w+|end_report
(?:__)?(?:asan|hwasan|kasan|kfence)_\w+|check_(?:memory_region|region_inline)\w*|debug_print_object
(?:__)?debug_(?:object|check)_\w+|debug_locks_off|(?:spin|rwlock)_(?:bug|dump)|do_raw_\w+|__sanitizer_\w+|write_comp_data
"""
# The small change of the kernel: what is wrong is what called them.
_HELPERS = r"""
(?:__)?refcount_\w+|kref_(?:get|put)\w*|__list_(?:add|del)\w*|list_(?:add|del)\w*|hlist_\w+|fortify_panic|__fortify_\w+
(?:__)?mem(?:cpy|set|move|cmp|chr|scan)\w*|(?:__?)?str(?:len|cpy|cmp|cat|chr|ncpy|ncmp|scpy|lcpy|nlen|str)\w*
_?_?(?:raw_)?_?copy_(?:from|to|in)_(?:user|iter|kernel)\w*|copy_(?:user|mc|page)_\w+|_?_?clear_user\w*|rep_movs\w*
(?:__)?(?:get|put)_user\w*|usercopy_\w+|__?check_(?:heap_object|object_size)\w*|skb_(?:over_|under_)?panic|assertfail
(?:__)?(?:arch_)?(?:atomic|atomic64|atomic_long)_\w+|instrument_\w+|(?:__|arch_|raw_)?(?:test|set|clear)_bit\w*
k[vz]?free\w*|k[vz]?[mc]alloc\w*|kv?realloc\w*|kmem\w+|slab_\w+|___?slab_\w+|__kmem\w+|__kmalloc\w*|object_err|vfree
check_(?:slab|object|bytes_and_report)\w*|(?:alloc|free)_(?:debug_processing|consistency_checks)|free_to_partial_list
new_slab|allocate_slab|set_freepointer|create_object|post_alloc_hook|__set_page_owner|prep_new_page|free_large_kmalloc
(?:__)?_?raw_(?:spin|read|write)_\w+|(?:__)?(?:mutex|rt_mutex|ww_mutex|down|up)_\w+|down|up|(?:rwsem|rt_spin)_\w+
(?:__)?lock_(?:acquire|release|is_held|downgrade|set_class)\w*|lock_\w*slowpath|__lock_\w+|queued_(?:spin|read|write)_\w+
(?:native|__pv)_queued_\w+|percpu_(?:down|up)_\w+|rt_read_\w+|(?:__)?lockdep_\w+|mark_(?:lock|held_locks|usage)\w*
check_(?:noncircular|prev_add|deadlock|wait_context|usage\w*|flush_dependency)|validate_chain|register_lock_class
assign_lock_key|reacquire_held_locks|valid_state|rcu_read_(?:un)?lock\w*|rcu_lock_\w+|__rcu_read_\w+|rcu_dereference\w*
preempt_\w+|trace_(?:hard|soft)irqs_\w+|local_(?:bh|irq)_\w+|__local_bh_\w+
"""
# Where every stack ends.
_ROOTS = r"""
kthread|worker_thread|process_one_work|process_scheduled_works|ret_from_fork\w*|start_secondary|cpu_startup_entry|do_idle
rest_init|start_kernel|x86_64_start_\w+|secondary_startup_\w+|(?:do|x64|ia32)_sys(?:call|_call)\w*|entry_\w+
el0_svc\w*|invoke_syscall\w*|ret_fast_syscall|arch_call_rest_init
"""
# Those that wait.
_WAITING = r"""
(?:__)?(?:io_)?schedule\w*|context_switch|preempt_schedule\w*|(?:__)?cond_resched\w*|bit_wait\w*|out_of_line_wait\w*
(?:__)?wait_(?:for_comp\w*|on_\w+|event\w*|for_common\w*|woken|rcu_gp)\w*|do_wait_for_common|__wait\w*|msleep\w*|usleep\w*
(?:__)?synchronize_(?:rcu|srcu|sched|net)\w*|rwbase_\w+|folio_wait_\w+|__switch_to\w*|call_rwsem_\w+|do_nanosleep
"""
# Those that run when the processor is interrupted, and that keep it busy for nothing.
_BUSY = r"""
(?:\w+_)?(?:nmi|tick|hrtimer|apic_timer|rcu)\w*|(?:__)?hrtimer_\w+|update_process_times|profile_tick|lapic_\w+
print_\w*stall|check_cpu_stall|dump_cpu_task|(?:smp|local)_(?:apic|call)_\w+|smp_call_function\w*|(?:__)?sysvec_\w+
irq_(?:exit|enter|work)\w*|(?:__)?(?:do_)?softirq\w*|handle_softirqs|invoke_softirq|call_on_irq_stack|do_interrupt_handler
run_(?:ksoftirqd|timer\w*)|watchdog_\w+|(?:\w+_)?handle_\w*irq\w*|handle_domain_irq|arch_(?:timer|trigger|irq|cpu_idle)\w*
native_(?:safe_)?halt|csd_lock_wait\w*|__flush_smp\w*|on_each_cpu\w*|cpu_relax|native_(?:irq|save|restore|read|write|apic)\w*
delay_\w+|__(?:const_)?[un]?delay|cpu_stopper_thread|multi_cpu_stop|default_idle\w*|raw_irqentry\w*|__irq_exit\w*
timekeeping_\w+|(?:scheduler|sched)_tick|kvm_\w*clock\w*|pvclock_\w+|__handle_domain_irq|generic_handle_\w+
"""


def _any(*tables: str) -> re.Pattern[str]:
    return re.compile("|".join(line for table in tables for line in table.split()))


_NOTHING = _any(_REPORTING, _ROOTS)
_HELPER = _any(_HELPERS)
WAITING = _any(_WAITING)
BUSY = _any(_BUSY, _WAITING)


def plain(function: str) -> str:
    """Return the name of a function without what compilers append."""
    return _SUFFIX.sub("", function)


def place(line: str) -> str | None:
    """Return the function that a line of a report is about, if it is a frame or an instruction pointer."""
    found = _PLACE.match(line)
    return plain(found[found.lastindex or 1]) if found else None


def culprit(functions: Iterable[str], skips: re.Pattern[str] | None = None) -> str | None:
    """Return the first function that is not there for every report.

    ``skips`` matches further ones that are not meant. If there are only such, it is the first helper, but none with
    ``skips``: what waits or is interrupted says nothing.
    """
    helper = None
    for function in functions:
        if _NOTHING.fullmatch(function):
            continue
        if not _HELPER.fullmatch(function) and not (skips and skips.fullmatch(function)):
            return function
        helper = helper or function
    return None if skips else helper
