"""Which function a report is about."""

from __future__ import annotations

import re
from collections.abc import Iterable

FUNCTION = r"[A-Za-z_$][\w.$]*"
# The instruction that was executed (x86, arm64, arm, RISC-V, PowerPC, s390), and a frame of a call trace. A frame
# with a question mark is what happened to be on the stack.
_PLACE = re.compile(
    r"^(?:RIP: \w+:|EIP: |[Pp][Cc] : |PC is at |epc : |NIP \[\w+\] |Krnl PSW : \w+ \w+ \()?"
    rf"\s*(?:\[<[0-9a-f]+>\]\s+)*(?:\([\w<>\[\]]+\) )?({FUNCTION})\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?\b"
)
# What compilers append to the name of a function.
_SUFFIX = re.compile(r"(?:\.(?:isra|constprop|part|cold|llvm|lto_priv)(?:\.\d+)*)+\Z|\.\d+\Z")

# Those that make a report, that catch the exception, and that lead to them.
_REPORTING = (
    r"dump_stack\w*|show_(?:stack|trace|regs)\w*|dump_backtrace|walk_stackframe|unwind_backtrace|sched_show_task|"
    r"(?:__)?warn(?:_slowpath)?\w*|__warn_printk|report_(?:bug|cfi\w*)|__report_bug|handle_bug|bug_handler|"
    r"(?:nmi_)?panic\w*|v?panic|(?:__)?die\w*|oops_\w+|do_exit|make_task_dead|rewind_stack\w*|no_context|"
    r"(?:arm64_)?notify_die|page_fault_oops|(?:__)?bad_area\w*|(?:kernelmode_)?fixup_or_oops|do_user_addr_fault|"
    r"(?:a?sm_)?(?:exc|sysvec)_\w+|asm_\w+|handle_page_fault|(?:__)?do_(?:page|kern_addr|user_addr)_fault|page_fault|"
    r"do_(?:error_trap|trap\w*|invalid_op|general_protection|int3|divide_error|mem_abort|translation_fault|"
    r"bad_area|sp_pc_abort|undefinstr|DataAbort|PrefetchAbort|kernel_fault)|invalid_op|general_protection|"
    r"double_fault|divide_error|error_(?:entry|exit)|ret_from_exception|common_interrupt\w*|fixup_exception|"
    r"el[01]t?_\w+|el[01]t?h?_64_\w+|vectors|brk_handler|call_break_hook|debug_exception_enter|do_debug_exception|"
    r"__(?:dabt|pabt|irq|und)_(?:svc|usr|invalid)|do_kernel_fault|arm_notify_die|"
    r"(?:__)?might_(?:sleep|resched|fault)\w*|__schedule_bug|__cant_(?:sleep|migrate)|schedule_debug|"
    r"check_preemption_disabled|(?:debug|__this_cpu)_\w*preempt\w*|debug_smp_processor_id|"
    r"check_panic_on_warn|print_\w*(?:bug|report|warning|description|header)|bad_page\w*|"
    r"(?:__)?ubsan_\w+|__ubsan_\w+|kcsan_\w+|__(?:tsan|kcsan)_\w+|kmsan_\w+|__msan_\w+|"
    r"(?:__)?(?:asan|hwasan|kasan|kfence)_\w+|__(?:asan|hwasan)_\w+|end_report|check_(?:memory_region|region_inline)\w*|"
    r"debug_print_object|(?:__)?debug_(?:object|check)_\w+|debug_locks_off|print_unlock_imbalance_bug|"
    r"(?:spin|rwlock)_(?:bug|dump)|do_raw_\w+"
)
# The small change of the kernel: what is wrong is what called them.
_HELPERS = (
    r"(?:__)?refcount_\w+|kref_(?:get|put)\w*|__list_(?:add|del)\w*|list_(?:add|del)\w*|hlist_\w+|"
    r"(?:__)?mem(?:cpy|set|move|cmp|chr|scan)\w*|__?str\w+|str(?:len|cpy|cmp|cat|chr|ncpy|ncmp|scpy|lcpy|nlen|str)\w*|"
    r"_?_?(?:raw_)?_?copy_(?:from|to|in)_(?:user|iter|kernel)\w*|copy_(?:user|mc|page)_\w+|_?_?clear_user\w*|"
    r"(?:__)?(?:get|put)_user\w*|rep_movs\w*|usercopy_abort|__?check_(?:heap_object|object_size)\w*|"
    r"(?:__)?(?:arch_)?(?:atomic|atomic64|atomic_long)_\w+|instrument_\w+|(?:__|arch_|raw_)?(?:test|set|clear)_bit\w*|"
    r"kfree\w*|k[vz]?[mc]alloc\w*|kmem_cache_(?:alloc|free)\w*|slab_\w+|__slab_\w+|___slab_\w+|__kmem\w+|__kmalloc\w*|"
    r"object_err|check_(?:slab|object|bytes_and_report)\w*|(?:alloc|free)_(?:debug_processing|consistency_checks)|"
    r"free_to_partial_list|krealloc\w*|kasprintf|vfree|kvfree\w*|"
    r"(?:__)?_?raw_(?:spin|read|write)_\w+|(?:__)?(?:mutex|rt_mutex|ww_mutex|down|up)_\w+|down|up|"
    r"(?:__)?lock_(?:acquire|release|is_held)\w*|lock_\w*slowpath|queued_(?:spin|read|write)_\w+|"
    r"native_queued_\w+|__pv_queued_\w+|percpu_(?:down|up)_\w+|(?:rwsem|rt_spin)_\w+|rt_read_\w+|"
    r"(?:__)?lockdep_\w+|check_(?:noncircular|prev_add|deadlock|wait_context|usage\w*|flush_dependency)|"
    r"(?:__)?lock_(?:release|set_class|downgrade)\w*|__lock_\w+|mark_(?:lock|held_locks|usage)\w*|validate_chain|"
    r"register_lock_class|assign_lock_key|reacquire_held_locks|valid_state|"
    r"rcu_read_(?:un)?lock\w*|rcu_lock_\w+|__rcu_\w+|rcu_dereference\w*|"
    r"preempt_\w+|trace_(?:hard|soft)irqs_\w+|local_(?:bh|irq)_\w+|__local_bh_\w+"
)
# Those that wait.
WAITING = (
    r"(?:__)?schedule\w*|(?:__)?io_schedule\w*|context_switch|preempt_schedule\w*|__cond_resched\w*|cond_resched\w*|"
    r"(?:__)?wait_(?:for_comp\w*|on_\w+|event\w*|for_common\w*|woken|rcu_gp)\w*|do_wait_for_common|bit_wait\w*|out_of_line_wait\w*|"
    r"__wait\w*|(?:__)?synchronize_(?:rcu|srcu|sched|net)\w*|rwbase_\w+|folio_wait_\w+|msleep\w*|usleep\w*|"
    r"__switch_to\w*|ret_from_fork\w*"
)
# Those that run when the processor is interrupted, and that keep it busy for nothing.
INTERRUPTING = (
    r"(?:\w+_)?(?:nmi|tick|hrtimer|apic_timer|rcu)\w*|(?:__)?hrtimer_\w+|update_process_times|tick_\w+|profile_tick|"
    r"(?:smp|local)_(?:apic|call)_\w+|smp_call_function\w*|(?:__)?sysvec_\w+|irq_(?:exit|enter|work)\w*|"
    r"(?:__)?(?:do_)?softirq\w*|invoke_softirq|asm_call_\w+|run_(?:ksoftirqd|timer\w*)|watchdog_\w+|"
    r"(?:handle|generic_handle|gic_handle|handle_percpu)_\w*irq\w*|call_on_irq_stack|do_interrupt_handler|"
    r"arch_(?:timer|trigger|irq|cpu_idle)\w*|dump_cpu_task|check_cpu_stall|print_cpu_stall|native_(?:safe_)?halt|"
    r"csd_lock_wait\w*|__flush_smp\w*|on_each_cpu\w*|cpu_relax|native_(?:irq|save|restore|read|write|apic)\w*|"
    r"delay_\w+|__(?:const_)?[un]?delay|cpu_stopper_thread|multi_cpu_stop|default_idle\w*|lapic_\w+|"
    r"raw_irqentry\w*|__irq_exit\w*|timekeeping_\w+|scheduler_tick|sched_tick|kvm_\w*clock\w*|pvclock_\w+"
)
_GENERIC = re.compile(rf"(?:{_REPORTING}|{_HELPERS})\Z")


def plain(function: str) -> str:
    """Return the name of a function without what compilers append."""
    return _SUFFIX.sub("", function)


def place(line: str) -> str | None:
    """Return the function that a line of a report is about, if it is a frame or an instruction pointer."""
    found = _PLACE.match(line)
    return plain(found[1]) if found else None


def culprit(functions: Iterable[str], skips: re.Pattern[str] | None = None) -> str | None:
    """Return the first function that is not there for every report; the first at all if there is no such function.

    ``skips`` matches further ones that are not meant.
    """
    first = None
    for function in functions:
        first = first or function
        if not _GENERIC.match(function) and not (skips and skips.fullmatch(function)):
            return function
    return first
