# SPDX-License-Identifier: Apache-2.0 OR MIT
"""A warm Ansible controller: imports Ansible once, and forks a process for each run.

It is started as `PYTHON controller.py` with the environment of a run, as a child of process 1 of a PID
namespace of its own (LOOPABULL_PRIVATE_PIDS=1), and with a stream socket as the descriptor whose number
is in LOOPABULL_CONTROL_FD. The socket carries JSON objects, one a line. `<` comes from the daemon, `>`
goes to it:

  > {"ready": {"ansible": "2.14.18", "python": "3.11.2", "guard": "landlock", "watch": [PATH...]}}
      If one of the paths changes, appears or disappears, this controller is out of date. Without the
      guard "landlock", which needs Linux 6.12, a run of the same user can kill the controller.
  < {"run": {"arguments": [TEXT...], "directory": PATH}}
      Its first byte carries standard output, standard error and the results by SCM_RIGHTS. In the run,
      the results have the number of our socket, and LOOPABULL_RESULTS_FD names it.
  > {"taken": {}}
  < {"go": true}          The run is forked now, and not before.
  > {"ended": {"exit": 2, "killed": 3, "spent": ""}}, or "signal": 9 instead of the exit status
      `killed` counts the processes that the run left behind, which are all gone now. `spent` names
      everything that the run changed for the next one; if it is not empty, the controller ends.
  < {"stop": true}        Sends SIGTERM to the process group of the run.
  < {"kill": true}        Sends SIGKILL to everything.

There is one run at a time. When the socket is closed, everything is killed. If the controller ends
without a message during a run, that run is lost. The controller itself never holds the state of a run:
it has imported the modules that runs import, and has read files that belong to Ansible itself.
"""

import ast
import atexit
import contextlib
import ctypes
import dis
import gc
import importlib
import json
import logging
import multiprocessing.synchronize
import os
import pkgutil
import platform
import random
import resource
import runpy
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
import types

# Packages whose plugins are imported, because they import further modules.
PLUGINS = (
    "action become cache callback connection filter inventory lookup shell strategy test vars"
).split()
# Importing this plugin only prints that it is deprecated.
DEPRECATED = "ansible.plugins.cache.base"
# Importing this package loads a plugin, and there may be another one of its name beside a playbook.
LOADING = "ansible.plugins.inventory"
# Other modules that a small play imports.
ALSO = (
    "ansible.executor.discovery ansible.executor.process.worker ansible.modules"
    " ansible.playbook.handler_task_include ansible.playbook.role_include"
    " ansible.plugins.doc_fragments ansible.utils.shlex multiprocessing.popen_fork"
    " multiprocessing.pool pty urllib.request"
).split()
# How many seconds processes may take to end after SIGKILL.
KILL_TIMEOUT = 5

LIBC = ctypes.CDLL(None, use_errno=True)
SET_DUMPABLE, SET_NAME, SET_NO_NEW_PRIVS = 4, 15, 38
# See linux/landlock.h. The system calls have the same numbers on x86_64 and aarch64.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
GET_VERSION, PATH_BENEATH, REFER, SCOPE_SIGNAL = 1, 1, 1 << 13, 1 << 1


def main():
    control = Control(int(os.environ.pop("LOOPABULL_CONTROL_FD")))
    check_namespace()
    script = find_script()
    os.umask(0o077)
    imported = {}
    # Exit functions are called in reverse order, so this one is called last.
    atexit.register(skip_teardown, imported)
    known = set(sys.modules)
    messages = import_ansible()
    locks = release_shared()
    gc.collect()
    gc.freeze()
    control_process(SET_DUMPABLE, 0)
    check_unshared(control)
    guard = kind_of_guard()
    send_ready(control, guard, script)
    run, descriptors = serve(control)
    # From here on this process is a run.
    separate(control, descriptors, guard, script)
    os.environ["LOOPABULL_RESULTS_FD"] = str(control.number)
    reset_process_state(run, locks)
    imported.update((name, sys.modules[name]) for name in set(sys.modules) - known)
    # This reference is never released.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(imported))
    os.write(2, messages)
    sys.argv = [script, *run["arguments"]]
    runpy.run_path(script, run_name="__main__")


def check_namespace():
    private = os.environ.pop("LOOPABULL_PRIVATE_PIDS", "") == "1"
    if not private or os.getppid() != 1 or other_processes():
        sys.exit("the controller is not alone with process 1 in a PID namespace")


def find_script():
    """Returns the path of `ansible-playbook`, and makes its directory the first of `sys.path`."""
    script = shutil.which("ansible-playbook") or sys.exit("no `ansible-playbook` on the PATH")
    with open(script, "rb") as file:
        # This raises an error if the file is not Python.
        compile(file.read(), script, "exec")
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.path.dirname(os.path.realpath(script))
    return script


def skip_teardown(imported):
    """Keeps Python from destroying, at the end of a run, the modules that the controller imported.

    Destroying them would write to each of their memory pages, which takes longer than a small play.
    Everything that the run itself has imported and made is destroyed as usual.
    """
    for name in imported:
        sys.modules.pop(name, None)


# The conversation with the daemon


class Control:
    """The socket of the daemon."""

    def __init__(self, number):
        self.number = number
        self.socket = socket.socket(fileno=number)
        os.set_inheritable(number, False)
        self.text = b""
        self.descriptors = []

    def send(self, **message):
        # If the daemon is gone, the next receive() finds the end of the socket.
        with contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def has_line(self):
        return b"\n" in self.text

    def receive(self):
        """Returns the next message. At the end of the socket it kills everything and exits."""
        while not self.has_line():
            data, descriptors = b"", []
            with contextlib.suppress(ConnectionError):
                data, descriptors, _, _ = socket.recv_fds(
                    self.socket, 1 << 16, 8, socket.MSG_CMSG_CLOEXEC
                )
            if not data:
                kill_all()
                sys.exit(0)
            self.text += data
            self.descriptors += descriptors
        line, _, self.text = self.text.partition(b"\n")
        return json.loads(line)


def send_ready(control, guard, script):
    control.send(
        ready={
            "ansible": sys.modules["ansible.release"].__version__,
            "python": platform.python_version(),
            "guard": guard,
            "watch": watched_paths(script),
        }
    )


def watched_paths(script):
    """Returns the paths whose change makes this controller differ from a new `ansible-playbook`."""
    from ansible import constants, release

    paths = [script, sys.executable, __file__, release.__file__, "/etc/localtime", *sys.path[1:]]
    modules = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    paths += [os.path.dirname(file) for file in modules if file]
    paths += [constants.CONFIG_FILE or "/etc/ansible/ansible.cfg"]
    paths += [constants.PLUGIN_FILTERS_CFG or "/etc/ansible/plugin_filters.yml"]
    paths += [f"{path}/ansible_collections" for path in constants.COLLECTIONS_PATHS]
    return sorted({path for path in paths if os.path.isabs(path)})


def serve(control):
    """Serves the daemon. Returns only in the process of a run, with the run and its descriptors."""
    before = visible_state()
    while True:
        message = control.receive()
        if "run" not in message:
            # It is for a run that has ended in the meantime.
            continue
        run, descriptors, control.descriptors = message["run"], control.descriptors, []
        if len(descriptors) != 3:
            sys.exit(f"a run needs three descriptors, and has {len(descriptors)}")
        control.send(taken={})
        if "go" not in control.receive():
            # The daemon has given up and starts the run in another way.
            close_all(descriptors)
            continue
        child = os.fork()
        if child == 0:
            return run, descriptors
        close_all(descriptors)
        ended = wait_for_run(control, child)
        changed = changes_since(before)
        control.send(ended={**ended, "spent": ", ".join(changed)})
        if changed:
            sys.exit(0)


def close_all(descriptors):
    for descriptor in descriptors:
        os.close(descriptor)


def changes_since(before):
    """Returns the names of everything that differs from an earlier visible_state()."""
    try:
        after = visible_state()
    except Exception as error:
        # The run has ended all the same, and the daemon must know.
        after = {"the visible state": str(error)}
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


def visible_state():
    """Returns everything that a run can change in this process, or leave in its namespaces."""
    limits = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    found = {name: resource.getrlimit(getattr(resource, name)) for name in limits}
    found["the processors"] = os.sched_getaffinity(0)
    found["the priority"] = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)
    found["the descriptors"] = sorted(os.listdir("/proc/self/fd"))
    for path in "self/oom_score_adj", "sysvipc/msg", "sysvipc/sem", "sysvipc/shm":
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{path}") as file:
            found[path] = file.read()
    with contextlib.suppress(FileNotFoundError):
        status = os.stat("/dev/shm")
        names = os.listxattr("/dev/shm")
        attributes = sorted((name, os.getxattr("/dev/shm", name)) for name in names)
        files = sorted(os.listdir("/dev/shm"))
        found["/dev/shm"] = status.st_mode, status.st_uid, status.st_gid, attributes, files
    return found


# The import of Ansible


def import_ansible():
    """Imports Ansible. Returns what it printed on standard error, which each run prints again."""
    saved = os.dup(2)
    with open(os.memfd_create("messages"), "w+b") as messages:
        os.dup2(messages.fileno(), 2)
        try:
            importlib.import_module("ansible.cli.playbook")
            import_plugins()
            keep_routes()
            keep_parsed_modules()
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            messages.seek(0)
            text = messages.read()
            os.write(2, text)
    return text


def import_plugins():
    """Imports plugins, because they import further modules, and forgets the plugins themselves.

    A plugin is in `sys.modules` under a name without its directory, where it would hide a plugin of the
    same name beside a playbook. So each run finds these names as they were after the import of
    `ansible.cli.playbook`, and finds loaders and a configuration that know no plugin.
    """
    from ansible.plugins import loader

    known = set(sys.modules)
    plugins = [
        (kind, module.name, f"{package.__name__}.{module.name}")
        for kind in PLUGINS
        for package in [importlib.import_module(f"ansible.plugins.{kind}")]
        for module in pkgutil.iter_modules(package.__path__)
    ]
    names = [name for _, _, name in plugins if name != DEPRECATED]
    for name in names + ALSO:
        # It may need a package that is not installed, or belong to another version of Ansible.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    keep_options(plugins)
    for name in sorted(set(sys.modules) - known, reverse=True):
        package, _, module = name.rpartition(".")
        if name == LOADING or package.count(".") == 2 and package.startswith("ansible.plugins."):
            vars(sys.modules[package]).pop(module, None)
            del sys.modules[name]
    if any([*loader.MODULE_CACHE.values(), *loader.PATH_CACHE.values()]):
        sys.exit("plugins are loaded")


# Patches of Ansible
#
# Each of the three makes Ansible skip work whose result is the same in each run. Each is skipped if this
# version of Ansible does not have the names that it needs: then each run does that work itself. They were
# measured on one machine, as CPU time of one run with one command.


def keep_options(plugins):
    """Patch 1: the options of Ansible's own plugins are parsed once.

    Reason: a loader parses the YAML documentation of each plugin that it loads, to find its options:
    30 ms in 2.14 and 2.16, 80 ms in 2.19.
    Versions: `PluginLoader._load_config_defs` and the other names are the same in 2.14, 2.16 and 2.19.
    """
    from ansible import constants
    from ansible.plugins import loader

    needed = [
        (loader, "PluginLoader"),
        (loader, "fragment_loader"),
        (constants.config, "_plugins"),
        (constants.config, "get_configuration_definitions"),
        (constants.config, "has_configuration_definition"),
        (constants.config, "initialize_plugin_configuration_definitions"),
        (getattr(loader, "PluginLoader", None), "_load_config_defs"),
        (getattr(loader, "PluginLoader", None), "_clear_caches"),
        (getattr(loader, "fragment_loader", None), "_extra_dirs"),
    ]
    if not all(hasattr(owner, name) for owner, name in needed):
        return
    original = loader.PluginLoader._load_config_defs
    options = read_options(plugins)

    def load(self, name, module, path):
        kind = loader.get_plugin_class(self.class_name)
        known = constants.config.has_configuration_definition(kind, name)
        # A fragment can describe options, and there may be another one of its name beside a playbook.
        found = options.get((kind, name, path))
        if found and not known and not loader.fragment_loader._extra_dirs:
            constants.config.initialize_plugin_configuration_definitions(kind, name, found)
        else:
            original(self, name, module, path)

    loader.PluginLoader._load_config_defs = load


def read_options(plugins):
    """Returns the options of plugins by kind, name and file. Leaves no trace in Ansible's caches."""
    from ansible import constants
    from ansible.plugins import loader

    options = {}
    for kind, short, name in plugins:
        if name in sys.modules and kind in constants.CONFIGURABLE_PLUGINS:
            module = sys.modules[name]
            getattr(loader, f"{kind}_loader")._load_config_defs(short, module, module.__file__)
            found = constants.config.get_configuration_definitions(kind, short)
            options[kind, short, module.__file__] = found
    constants.config._plugins.clear()
    for _, one in loader.get_all_plugin_loaders():
        one._clear_caches()
    return options


def keep_routes():
    """Patch 2: the file that says which plugins of Ansible itself have moved is parsed once.

    Reason: parsing this YAML file takes 170 to 210 ms.
    Versions: `_collection_finder._meta_yml_to_dict` is the same in 2.14, 2.16 and 2.19. In 2.14 and 2.15
    the import of Ansible has parsed the file already, and nothing is patched.
    """
    from ansible.utils.collection_loader import _collection_finder

    original = getattr(_collection_finder, "_meta_yml_to_dict", None)
    if not original or "ansible_collections.ansible.builtin" in sys.modules:
        return
    path = os.path.join(os.path.dirname(sys.modules["ansible"].__file__), "config")
    try:
        with open(os.path.join(path, "ansible_builtin_runtime.yml"), "rb") as file:
            text = file.read()
    except FileNotFoundError:
        return
    routes = [original(text, ("ansible.builtin", "runtime.yml"))]

    def read(data, content):
        # It is returned only once, because the caller may change it.
        return routes.pop() if routes and data == text else original(data, content)

    _collection_finder._meta_yml_to_dict = read


def keep_parsed_modules():
    """Patch 3: the source files that most modules include are parsed once.

    Reason: Ansible parses each file of `module_utils` that a module includes, to find further imports:
    110 ms in 2.14, 170 ms in 2.16 and 2.19.
    Versions: in 2.14, 2.16 and 2.19 functions of `module_common` call the builtin `compile` for that. A
    global of that name in the module hides the builtin.
    """
    from ansible.executor import module_common

    functions = [one for one in vars(module_common).values() if isinstance(one, types.FunctionType)]
    steps = (step for function in functions for step in dis.get_instructions(function))
    if not any(step.opname == "LOAD_GLOBAL" and step.argval == "compile" for step in steps):
        return
    trees = {}
    for name, module in list(sys.modules.items()):
        if name.startswith("ansible.module_utils.") and getattr(module, "__file__", None):
            with open(module.__file__, "rb") as file:
                text = file.read()
            trees[text] = compile(text, "<unknown>", "exec", ast.PyCF_ONLY_AST)

    def compile_(text, name, mode, flags=0, *more, **options):
        tree = trees.get(text) if (mode, flags) == ("exec", ast.PyCF_ONLY_AST) else None
        return tree or compile(text, name, mode, flags, *more, **options)

    module_common.compile = compile_


# The border between the controller and its runs


def release_shared():
    """Releases everything that a run would share. Returns the locks, which each run makes again."""
    from ansible import constants

    shutil.rmtree(constants.DEFAULT_LOCAL_TMP)
    for handler in logging.root.handlers:
        # It opens its file again when it has something to write.
        handler.close()
    # Locks of multiprocessing are in shared memory, and a killed process does not release its lock.
    kinds = multiprocessing.synchronize.Lock, multiprocessing.synchronize.RLock
    locks = [one for one in gc.get_objects() if isinstance(one, kinds)]
    for lock in locks:
        vars(lock).clear()
    return locks


def check_unshared(control):
    """Ends this process if a run could use something in it to change it."""
    with open("/proc/self/maps") as file:
        memory = [line for line in file if line.split()[1].startswith("rw-s")]
    listed = {int(name) for name in os.listdir("/proc/self/fd")}
    # One of them belonged to the listing itself and is closed by now.
    descriptors = {one for one in listed if is_open(one)} - {0, 1, 2, control.number}
    if memory or descriptors or len(os.listdir("/proc/self/task")) > 1:
        sys.exit(f"a run would share memory {memory}, descriptors {descriptors} or a thread")


def is_open(descriptor):
    return os.path.exists(f"/proc/self/fd/{descriptor}")


def separate(control, descriptors, guard, script):
    """Separates a run from the controller: from its descriptors, its session and its name."""
    os.setsid()
    control.socket.detach()
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    numbers = [0, 1, 2, control.number]
    for source, number in zip([null, *descriptors], numbers):
        os.dup2(source, number)
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in numbers:
            with contextlib.suppress(OSError):
                os.close(int(name))
    control_process(SET_DUMPABLE, 1)
    control_process(SET_NAME, os.path.basename(script).encode())
    control_process(SET_NO_NEW_PRIVS, 1)
    if guard == "landlock":
        enter_domain()


def reset_process_state(run, locks):
    """Renews everything that differs between processes that import Ansible."""
    from ansible import constants

    os.umask(0o077)
    os.chdir(run["directory"])
    random.seed()
    tempfile.tempdir = None
    multiprocessing.current_process().authkey = os.urandom(32)
    for lock in locks:
        lock.__init__(ctx=multiprocessing.get_context("fork"))
    # The identifiers of tasks begin with a random number, which this module takes when it is imported.
    importlib.reload(sys.modules["ansible.utils.vars"])
    importlib.invalidate_caches()
    constants.DEFAULT_LOCAL_TMP = constants.config.get_config_value("DEFAULT_LOCAL_TMP")


# The end of a run


def wait_for_run(control, child):
    """Waits until a run has ended, kills the processes that it left, and returns how it ended."""
    killed = set()
    ended = os.pidfd_open(child)
    while control.has_line() or ended not in select.select([ended, control.socket], [], [])[0]:
        message = control.receive()
        if "stop" in message:
            try:
                os.killpg(child, signal.SIGTERM)
            except ProcessLookupError:
                # It is not the leader of its process group yet.
                os.kill(child, signal.SIGTERM)
        elif "kill" in message:
            killed |= kill_all()
        else:
            sys.exit(f"unexpected message during a run: {message}")
    os.close(ended)
    killed |= kill_all()
    # The child is reaped last, so that no other process gets its number.
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    how = {"exit": code} if code >= 0 else {"signal": -code}
    return {**how, "killed": len(killed - {child})}


def kill_all():
    """Kills all other processes, and returns their numbers."""
    killed = set()
    deadline = time.monotonic() + KILL_TIMEOUT
    while found := other_processes():
        if time.monotonic() > deadline:
            sys.exit(f"processes do not end after SIGKILL: {sorted(found)}")
        killed |= found
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        time.sleep(0.001)
    return killed


def other_processes():
    """Returns the processes other than process 1 and this one that have not ended."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in (1, os.getpid()):
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b") ")[2].split()
                # The first thread may have ended before others: proc_pid_stat(5), num_threads.
                if fields[0] not in (b"Z", b"X") or int(fields[17]) > 1:
                    found.add(int(name))
    return found


# System calls


def kind_of_guard():
    with contextlib.suppress(OSError):
        if call(CREATE_RULESET, 0, 0, GET_VERSION) >= 6:
            return "landlock"
    return "dumpable"


def enter_domain():
    """Enters a Landlock domain that only forbids signalling and tracing processes outside of it."""
    # Without a rule, Landlock denies linking and renaming across directories.
    attributes = struct.pack("QQQ", REFER, 0, SCOPE_SIGNAL)
    ruleset = call(CREATE_RULESET, attributes, len(attributes), 0)
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    call(ADD_RULE, ruleset, PATH_BENEATH, struct.pack("=Qi", REFER, root), 0)
    call(RESTRICT_SELF, ruleset, 0)
    os.close(root)
    os.close(ruleset)


def call(number, *arguments, function=LIBC.syscall):
    """Makes a system call for which Python has no function."""
    as_c = [ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_long(a) for a in arguments]
    result = function(ctypes.c_long(number), *as_c)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{function.__name__} {number}")
    return result


def control_process(option, value):
    call(option, value, 0, 0, 0, function=LIBC.prctl)


if __name__ == "__main__":
    main()
