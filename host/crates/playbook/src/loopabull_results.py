# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Reports the results of a play to the daemon that started ansible-playbook, as JSON lines over a pipe.

LOOPABULL_RESULTS_FD contains the number of the pipe's file descriptor. If the variable is not set, the
plugin is disabled. The plugin must never make a play fail or behave differently.
"""

import ctypes
import fcntl
import functools
import itertools
import json
import os
import re
from collections.abc import Mapping

from ansible.plugins.callback import CallbackBase
from ansible.release import __version__

DOCUMENTATION = """
name: loopabull_results
type: aggregate
short_description: reports results as JSON lines
description:
  - Writes one JSON object a line for every result to the descriptor in LOOPABULL_RESULTS_FD.
"""

DESCRIPTOR = "LOOPABULL_RESULTS_FD"
FORMAT = 1
HIDDEN = "hidden by no_log"
SURROGATE = re.compile("[\ud800-\udfff]")

# The maximum length of a name, a message and a warning in characters, and the maximum number of results and
# warnings in a run, and of items in the message of a loop.
NAME = 300
MESSAGE = 2000
WARNING = 500
RESULTS = 10_000
WARNINGS = 50
ITEMS = 3

COUNTS = ("ok", "changed", "unreachable", "failures", "skipped", "rescued", "ignored")


def cut(value, limit):
    """Returns `value` as a plain str of at most `limit` characters. A truncated str ends in an ellipsis."""
    if not isinstance(value, str):
        value = json.dumps(few(value), ensure_ascii=False)
    # The value is sliced before it is searched, because it may be huge. `str.__getitem__` is called directly,
    # because a subclass of str may override slicing.
    head = SURROGATE.sub("\ufffd", str.__getitem__(value, slice(limit + 1)))
    return head if len(head) <= limit else head[: limit - 1] + "…"


def few(value, depth=2):
    """Returns a small copy of `value` that can be written as JSON: with few entries, short texts and few
    levels."""
    if isinstance(value, str):
        return cut(value, NAME)
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int) and value.bit_length() <= 64:
        return value
    if isinstance(value, Mapping) and depth:
        pairs = itertools.islice(value.items(), 20)
        return {cut(key, NAME): few(entry, depth - 1) for key, entry in pairs}
    if isinstance(value, (list, tuple)) and depth:
        return [few(entry, depth - 1) for entry in value[:20]] + ["…"] * (len(value) > 20)
    return type(value).__name__


def last_line(value):
    """Returns the last line of a text, or an empty string if `value` is not a text."""
    if not isinstance(value, str):
        return ""
    return str.__getitem__(value, slice(-MESSAGE, None)).strip().rpartition("\n")[2]


def hidden(data):
    """Returns whether `no_log` forbids reporting a result. Then its items are not reported either."""
    return "censored" in data or bool(data.get("_ansible_no_log"))


def reason(data):
    """Returns the reason why a module failed: its message, and the last line of its standard error."""
    if hidden(data):
        return HIDDEN
    text = data.get("msg") or data.get("reason")
    lines = [cut(text, MESSAGE)] if text else []
    lines += [last_line(data.get(key)) for key in ("stderr", "module_stderr")]
    return "\n".join(filter(None, lines))


def failed(item):
    """Returns whether an entry of a result is a failed item of a loop. In Ansible 2.21 a failed item may
    have the key `exception` but not the key `failed`."""
    if not isinstance(item, Mapping) or "ansible_loop_var" not in item:
        return False
    mark = item.get("failed_when_result", item.get("failed", "exception" in item))
    return bool(mark or item.get("unreachable"))


def message(data):
    """Returns the reason why a task failed. For a loop, returns the reasons of its first failed items."""
    items = data.get("results")
    items = filter(failed, items if isinstance(items, (list, tuple)) else ())
    reasons = [reason(item) for item in itertools.islice(items, ITEMS)]
    return cut("\n".join(filter(None, reasons)) or reason(data), MESSAGE)


def part(result, name):
    """Returns an attribute of a task result. Before ansible-core 2.19 its name begins with `_`."""
    return getattr(result, name) if hasattr(result, name) else getattr(result, "_" + name)


def action_name(task):
    """Returns the full name of the task's action. Before 2.19 Ansible does not resolve the names of its own
    include actions."""
    written = task.action
    builtin = written if "." in written else "ansible.builtin." + written
    return task.resolved_action or builtin


def harmless(hook):
    """Makes `hook` report an exception instead of raising it. Only the type of the exception is reported,
    because its text may contain a secret."""

    @functools.wraps(hook)
    def run(self, *args, **kwargs):
        try:
            hook(self, *args, **kwargs)
        except Exception as error:
            self._report_problem(f"{type(error).__name__} in {hook.__name__}")

    return run


class CallbackModule(CallbackBase):
    """Reports the start of Ansible, each task's result on each host, warnings, and the recap."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "loopabull_results"
    CALLBACK_NEEDS_ENABLED = False
    CALLBACK_NEEDS_WHITELIST = False

    def __init__(self):
        super().__init__()
        self._fd = None
        self._results = 0
        self._warned = set()
        self._has_problem = False
        try:
            self._fd = take_descriptor()
        except (KeyError, ValueError, OverflowError, OSError):
            self._stop()
        protect_process()
        # Processes that Ansible forks must not have the pipe, because they run code of modules and would
        # keep the pipe open. The plugin therefore closes the pipe in each forked process.
        os.register_at_fork(after_in_child=self._stop)
        self._send(event="start", format=FORMAT, ansible=__version__)

    def _send(self, **event):
        """Writes one line. A failed write disables the plugin."""
        if self._fd is None:
            return
        line = json.dumps(event).encode("ascii") + b"\n"
        try:
            while line:
                line = line[os.write(self._fd, line):]
        except OSError:
            self._stop()

    def _stop(self):
        """Disables the plugin and closes the pipe."""
        fd, self._fd, self.disabled = self._fd, None, True
        if fd is not None:
            os.close(fd)

    def _report_problem(self, text):
        if not self._has_problem:
            self._has_problem = True
            self._send(event="problem", text=text)

    def _report_warnings(self, data):
        """Reports the warnings of a module. Each text is reported once in a run."""
        for key in ("warnings", "deprecations"):
            entries = data.get(key)
            for entry in entries if isinstance(entries, (list, tuple)) else ():
                if len(self._warned) >= WARNINGS:
                    return
                text = cut(entry.get("msg") if isinstance(entry, Mapping) else entry, WARNING)
                if text not in self._warned:
                    self._warned.add(text)
                    self._send(event="warning", text=text)

    def _report(self, result, status, ignored=False):
        task, data = part(result, "task"), part(result, "result")
        secret = task.no_log or hidden(data)
        if not secret:
            self._report_warnings(data)
        self._results += 1
        if self._results > RESULTS:
            return
        event = {
            "event": "result",
            "host": cut(part(result, "host").get_name(), NAME),
            "task": cut(task.get_name(), NAME),
            "action": cut(action_name(task), NAME),
            "status": status,
            "changed": bool(data.get("changed")),
            "ignored": bool(ignored),
        }
        if status in ("failed", "unreachable"):
            event["message"] = HIDDEN if secret else message(data)
        self._send(**event)

    # An async task that is polled also ends in one of these four hooks, so the plugin needs no async hooks.

    @harmless
    def v2_runner_on_ok(self, result):
        self._report(result, "ok")

    @harmless
    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._report(result, "failed", ignore_errors)

    @harmless
    def v2_runner_on_unreachable(self, result):
        self._report(result, "unreachable", part(result, "task").ignore_unreachable)

    @harmless
    def v2_runner_on_skipped(self, result):
        self._report(result, "skipped")

    @harmless
    def v2_playbook_on_no_hosts_matched(self):
        self._send(event="no-hosts")

    @harmless
    def v2_playbook_on_no_hosts_remaining(self):
        self._send(event="no-hosts-left")

    @harmless
    def v2_playbook_on_stats(self, stats):
        hosts = {}
        for host in sorted(stats.processed):
            counts = stats.summarize(host)
            hosts[cut(host, NAME)] = {
                "failed" if name == "failures" else name: counts.get(name, 0) for name in COUNTS
            }
        dropped = max(0, self._results - RESULTS)
        self._send(event="recap", hosts=hosts, results_dropped=dropped)


def protect_process():
    """Protects this process from other processes of the same user.

    Such a process could read the memory of this process, or write to the pipe through `/proc/PID/fd`.
    PR_SET_DUMPABLE of prctl(2) makes the kernel refuse both.
    """
    set_dumpable = 4
    ctypes.CDLL(None).prctl(set_dumpable, 0, 0, 0, 0)


def take_descriptor():
    """Replaces the inherited file descriptor by a copy that child processes do not inherit. Returns it.

    A descriptor that is not inheritable was opened by Ansible itself. Then the number in the environment is
    wrong, and an error is raised.
    """
    fd = int(os.environ.pop(DESCRIPTOR))
    if fd <= 2 or not os.get_inheritable(fd):
        raise ValueError(fd)
    private = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    os.set_blocking(private, True)
    return private
