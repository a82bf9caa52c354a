# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Reports the results of a play to the daemon that started ansible-playbook, as JSON lines over a pipe.

The number of the inherited descriptor is in LOOPABULL_RESULTS_FD; without it the plugin is off.
A play must never fail or behave differently because of this plugin.
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

# Limits of a report: the first three in characters, the others in number.
NAME = 300
MESSAGE = 2000
WARNING = 500
RESULTS = 10_000
WARNINGS = 50
ITEMS = 3

COUNTS = ("ok", "changed", "unreachable", "failures", "skipped", "rescued", "ignored")


def cut(value, limit):
    """Returns `value` as a plain str of at most `limit` characters; a cut one ends in an ellipsis."""
    if not isinstance(value, str):
        value = json.dumps(few(value), ensure_ascii=False)
    # It is sliced first, by str itself, because the value may be huge or of a subclass of str.
    head = SURROGATE.sub("\ufffd", str.__getitem__(value, slice(limit + 1)))
    return head if len(head) <= limit else head[: limit - 1] + "…"


def few(value, depth=2):
    """Returns a small copy of any `value` that json can write: few entries, short, not deep."""
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
    """Returns the last line of a text. Returns an empty string for anything else."""
    if not isinstance(value, str):
        return ""
    return str.__getitem__(value, slice(-MESSAGE, None)).strip().rpartition("\n")[2]


def hidden(data):
    """Tells whether no_log forbids reporting any part of a result, even items that are not censored."""
    return "censored" in data or bool(data.get("_ansible_no_log"))


def reason(data):
    """Returns why a module failed: its own message, and the last line of its standard error."""
    if hidden(data):
        return HIDDEN
    text = data.get("msg") or data.get("reason")
    lines = [cut(text, MESSAGE)] if text else []
    lines += [last_line(data.get(key)) for key in ("stderr", "module_stderr")]
    return "\n".join(filter(None, lines))


def failed(item):
    """Tells whether an entry of a result is a failed item of a loop: 2.21 only has its exception."""
    if not isinstance(item, Mapping) or "ansible_loop_var" not in item:
        return False
    mark = item.get("failed_when_result", item.get("failed", "exception" in item))
    return bool(mark or item.get("unreachable"))


def message(data):
    """Returns why a task failed; for a loop, why its first failed items did."""
    items = data.get("results")
    items = filter(failed, items if isinstance(items, (list, tuple)) else ())
    reasons = [reason(item) for item in itertools.islice(items, ITEMS)]
    return cut("\n".join(filter(None, reasons)) or reason(data), MESSAGE)


def part(result, name):
    """Returns a part of a task result. It is a public attribute only since ansible-core 2.19."""
    return getattr(result, name) if hasattr(result, name) else getattr(result, "_" + name)


def action_name(task):
    """Returns the full name of the task's action. Before 2.19 Ansible does not resolve its includes."""
    written = task.action
    builtin = written if "." in written else "ansible.builtin." + written
    return task.resolved_action or builtin


def harmless(hook):
    """Makes `hook` report its exceptions instead: only the type, because the text may be secret."""

    @functools.wraps(hook)
    def run(self, *args, **kwargs):
        try:
            hook(self, *args, **kwargs)
        except Exception as error:
            self._report_problem(f"{type(error).__name__} in {hook.__name__}")

    return run


class CallbackModule(CallbackBase):
    """Reports the start, every task's result on every host, warnings, and the recap."""

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
        # Ansible's forks would keep the pipe open and pass it to the code that they run.
        os.register_at_fork(after_in_child=self._stop)
        self._send(event="start", format=FORMAT, ansible=__version__)

    def _send(self, **event):
        """Writes one line. After a failed write, nothing is written any more."""
        if self._fd is None:
            return
        line = json.dumps(event).encode("ascii") + b"\n"
        try:
            while line:
                line = line[os.write(self._fd, line):]
        except OSError:
            self._stop()

    def _stop(self):
        """Stops all reports."""
        fd, self._fd, self.disabled = self._fd, None, True
        if fd is not None:
            os.close(fd)

    def _report_problem(self, text):
        if not self._has_problem:
            self._has_problem = True
            self._send(event="problem", text=text)

    def _report_warnings(self, data):
        """Reports the warnings of a module, each text once in a run."""
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

    # A polled task also ends in one of these four hooks, so the async hooks would only repeat it.

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
    """Protects the memory of this process, and its descriptors in /proc, from the play's processes.

    A process of the same user could write to the pipe there. See proc(5) and PR_SET_DUMPABLE in
    prctl(2).
    """
    set_dumpable = 4
    ctypes.CDLL(None).prctl(set_dumpable, 0, 0, 0, 0)


def take_descriptor():
    """Moves the inherited descriptor to a number that no module or other child inherits, and returns it.

    A descriptor that is not inheritable belongs to Ansible, so the number is not meant for us.
    """
    fd = int(os.environ.pop(DESCRIPTOR))
    if fd <= 2 or not os.get_inheritable(fd):
        raise ValueError(fd)
    private = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    os.set_blocking(private, True)
    return private
