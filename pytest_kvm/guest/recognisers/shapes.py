"""What lines look like that stand in a report behind its first one."""

from __future__ import annotations

import re

_FRAMES = (
    r"\s*(?:\? )?(?:\[<?[0-9a-f]+>?\] )?[\w.$]+\+0x[0-9a-f]+|\s*</?[A-Z#][\w!]*>|[Cc]all [Tt]race:|Backtrace:|Stack:"
)
_REGISTERS = (
    r"(?:RIP|EIP|RSP|ESP|EFLAGS|CPU|UID|PID|CR2|pstate|psr|PSTATE|Code|Comm|Workqueue|Hardware name|Tainted|Process): |"
    r"[A-Z][A-Z0-9]{1,4}: [0-9a-f]{4}|[Ff]lags: |[Pp][Cc] (?::|is at)|LR |lr : |sp : |[a-z]\w{1,2} ?: ?[0-9a-f]{8}|"
    r"[A-Z]{2,3}:\s+[0-9a-f]{4}|Modules linked in:|Control: |Register r|NIP |MSR"
)
_FAULTS = (
    r"#PF: |PGD |P4D |\*?pgd|\[[0-9a-f]{8,}\]|Oops|Internal error|Mem abort|Data abort|\w+ pgtable|"
    r"  \w+ = |KASAN: |Thread overran|note: |---\[|Exception |Dumping ftrace|Kernel Offset|Kernel panic|SMP: stopping|"
    r"Disabl(?:ed|ing) |Rebooting in|Starting crashdump|Fixing recursive|Insufficient|traps: |WARNING: kernel stack"
)
_SANITIZERS = (
    r"={8}|-{24}|(?:Read|Write) (?:of|at) |Allocated by|Freed by|The buggy|Memory state|[ >]*[0-9a-f]{8,}: |\s*\^|"
    r"(?:which|located|flags|raw|page|freed|allocated|Last|Second|Local variable|Uninit|Bytes)\b|"
    r"(?:Memory access|Data copied|read|write|race|value|kfence|freed by|page_type|head|page last|page dumped|"
    r"hex dump|backtrace)\b|\s*[0-9a-f]{2} [0-9a-f]{2} |Object|Redzone|Padding|Bytes b4|INFO: |FIX |Slab|Reported by"
)
_LOCKS = (
    r"\d+ locks? held|no locks held|\s*#\d+: |irq event stamp|(?:hard|soft)irqs last|other info|stack backtrace|"
    r"\s*\*\*\* DEADLOCK|\s*-> #|\s*->|but |the existing|which |and this|\.\.\. |to a |Possible |\s{6,}|\S+/\d+ is |"
    r"Chain exists|\{[\w-]+\}|Showing|rcu_scheduler_active|\S+/\d+ (?:is )?(?:trying|just)|in_atomic|preempt_count|"
    r"RCU nest|Preemption disabled|caller is|\s*\w+\(|May be|lock:|\S+/\d+ \["
)
_STALLS = (
    r"rcu: |\s*\d+-[.!O?]|\s*\(|NMI |Sending NMI|task:|\"echo 0|Tasks blocked|Blocked by|workqueue \w|pool |"
    r"\s*pwq |\s+(?:in-flight|pending|inactive|delayed): |Workqueue|CPU#|\s*#|Future hung|rcu_\w+|blocking rcu"
)
_MEMORY = (
    r"Mem-Info|\s*(?:active|inactive|free|unevictable|slab|mapped|kernel_misc|isolated|dirty|sec_pagetables)\w*:|Node |"
    r"lowmem_reserve|\d+ (?:total )?pages|Free swap|Total swap|Swap cache|0 pages|Tasks state|\[ *(?:pid|\d+) *\]|"
    r"oom-kill:|oom_|(?:memory|swap|kmem): |Memory cgroup|(?:anon|file|kernel|shmem|pgfault|workingset)\w* \d|"
    r"kmemleak: |Unreclaimable|cma|[a-z_]+ \d+\Z"
)
BELONGS = re.compile("|".join([_FRAMES, _REGISTERS, _FAULTS, _SANITIZERS, _LOCKS, _STALLS, _MEMORY]))
