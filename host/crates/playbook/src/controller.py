# SPDX-License-Identifier: Apache-2.0 OR MIT
"""A warm Ansible controller: imports Ansible once, and forks a process for each run.

The daemon starts the controller through the launcher, as `PYTHON controller.py` with the environment of a
run. The controller is a child of process 1 of its own PID namespace (LOOPABULL_PRIVATE_PIDS=1). It talks to
the daemon over a stream socket; LOOPABULL_CONTROL_FD contains the number of the socket's file descriptor.
Each line on the socket is a JSON object. In this list, the daemon sends the lines with `<`, and the
controller sends the lines with `>`:

  > {"ready": {"ansible": "2.14.18", "python": "3.11.2", "guard": "landlock", "watch": [PATH...]}}
      Ansible is imported. If a path in `watch` changes, appears or disappears, the controller is out of
      date. Without the guard "landlock", which needs Linux 6.12, a run of the same user can kill the
      controller.
  < {"run": {"arguments": [TEXT...], "directory": PATH}}
      Prepares a run. The file descriptors for standard output, standard error and the results are attached
      to the first byte of this line (SCM_RIGHTS). In the process of the run, the descriptor for the results
      has the number that the control socket has here, and LOOPABULL_RESULTS_FD contains that number.
  > {"taken": {}}
      The run is accepted. Its process is not forked yet.
  < {"go": true}
      Forks the process of the run.
  > {"ended": {"exit": 2, "killed": 3, "spent": ""}}
      All processes of the run have ended. If a signal ended the run, `"signal": 9` replaces `exit`. `killed`
      is the number of processes that the run left behind and that were killed. `spent` names everything
      that the run changed in this process or its namespaces. If `spent` is not empty, the controller exits.
  < {"stop": true}
      Sends SIGTERM to the process group of the run.
  < {"kill": true}
      Sends SIGKILL to all processes of the run.

The controller has one run at a time. When the daemon closes the socket, the controller kills the run and
exits. If the controller exits during a run without sending `ended`, the daemon treats the run as lost. The
controller itself never reads the message or the playbook of a run. It only imports modules that runs import,
and reads files that belong to Ansible.
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

# The packages under `ansible.plugins` whose plugins are imported, so that the modules that those plugins
# import are loaded too.
PLUGINS = (
    "action become cache callback connection filter inventory lookup shell strategy test vars"
).split()
# A plugin that is not imported, because its import only prints a deprecation warning.
DEPRECATED = "ansible.plugins.cache.base"
# A package that loads a plugin when it is imported. Each run must import the package itself, because a
# plugin of the same name may be beside the playbook.
LOADING = "ansible.plugins.inventory"
# Further modules that even a small play imports.
ALSO = (
    "ansible.executor.discovery ansible.executor.process.worker ansible.modules"
    " ansible.playbook.handler_task_include ansible.playbook.role_include"
    " ansible.plugins.doc_fragments ansible.utils.shlex multiprocessing.popen_fork"
    " multiprocessing.pool pty urllib.request"
).split()
# The timeout, in seconds, for processes to end after SIGKILL.
KILL_TIMEOUT = 5

LIBC = ctypes.CDLL(None, use_errno=True)
SET_DUMPABLE, SET_NAME, SET_NO_NEW_PRIVS = 4, 15, 38
# The system calls and constants of linux/landlock.h. The numbers are the same on x86_64 and aarch64.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
GET_VERSION, PATH_BENEATH, REFER, SCOPE_SIGNAL = 1, 1, 1 << 13, 1 << 1


def main():
    control = Control(int(os.environ.pop("LOOPABULL_CONTROL_FD")))
    check_namespace()
    script = find_script()
    os.umask(0o077)
    imported = {}
    # Python calls exit functions in reverse order of registration. `skip_teardown` must be called last, so
    # it is registered first.
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
    # Only the forked process of a run gets here.
    separate(control, descriptors, guard, script)
    os.environ["LOOPABULL_RESULTS_FD"] = str(control.number)
    reset_process_state(run, locks)
    imported.update((name, sys.modules[name]) for name in set(sys.modules) - known)
    # Python must not destroy this dictionary at exit, so its reference is never released.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(imported))
    os.write(2, messages)
    sys.argv = [script, *run["arguments"]]
    runpy.run_path(script, run_name="__main__")


def check_namespace():
    private = os.environ.pop("LOOPABULL_PRIVATE_PIDS", "") == "1"
    if not private or os.getppid() != 1 or other_processes():
        sys.exit("the controller must run alone with process 1 in its own PID namespace")


def find_script():
    """Returns the path of `ansible-playbook`, and makes its directory the first entry of `sys.path`."""
    script = shutil.which("ansible-playbook") or sys.exit("cannot find `ansible-playbook` on the PATH")
    with open(script, "rb") as file:
        # `compile` raises an error if the file is not a Python script.
        compile(file.read(), script, "exec")
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.path.dirname(os.path.realpath(script))
    return script


def skip_teardown(imported):
    """Removes the modules in `imported` from `sys.modules`, so that Python does not destroy them at exit.

    A run shares the memory pages of these modules with the controller. Destroying the modules would copy
    each page, which takes longer than a small play. Python still destroys the objects of the run itself.
    """
    for name in imported:
        sys.modules.pop(name, None)


# Messages from and to the daemon


class Control:
    """The control socket, which is connected to the daemon."""

    def __init__(self, number):
        self.number = number
        self.socket = socket.socket(fileno=number)
        os.set_inheritable(number, False)
        self.text = b""
        self.descriptors = []

    def send(self, **message):
        # If the daemon has closed the socket, the error is ignored here and the next receive() exits.
        with contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def has_line(self):
        return b"\n" in self.text

    def receive(self):
        """Returns the next message. If the daemon has closed the socket, kills the run and exits."""
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
    """Returns the paths whose changes make this controller differ from a new `ansible-playbook`."""
    from ansible import constants, release

    paths = [script, sys.executable, __file__, release.__file__, "/etc/localtime", *sys.path[1:]]
    modules = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    paths += [os.path.dirname(file) for file in modules if file]
    paths += [constants.CONFIG_FILE or "/etc/ansible/ansible.cfg"]
    paths += [constants.PLUGIN_FILTERS_CFG or "/etc/ansible/plugin_filters.yml"]
    paths += [f"{path}/ansible_collections" for path in constants.COLLECTIONS_PATHS]
    return sorted({path for path in paths if os.path.isabs(path)})


def serve(control):
    """Handles messages from the daemon. Returns in the forked process of a run, with the run and its
    file descriptors."""
    before = visible_state()
    while True:
        message = control.receive()
        if "run" not in message:
            # The message is a "stop" or "kill" for a run that has just ended.
            continue
        run, descriptors, control.descriptors = message["run"], control.descriptors, []
        if len(descriptors) != 3:
            sys.exit(f"a run needs 3 file descriptors, but {len(descriptors)} were received")
        control.send(taken={})
        if "go" not in control.receive():
            # The daemon has withdrawn the run.
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
    """Returns the names of the values that differ from `before`, an earlier visible_state()."""
    try:
        after = visible_state()
    except Exception as error:
        # The daemon must still get `ended`. The error makes the two states differ, so the controller exits.
        after = {"the visible state": str(error)}
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


def visible_state():
    """Returns the values that a run can change in this process or in its namespaces, by name."""
    limits = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    found = {name: resource.getrlimit(getattr(resource, name)) for name in limits}
    found["the processors"] = os.sched_getaffinity(0)
    found["the priority"] = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)
    found["the descriptors"] = sorted(os.listdir("/proc/self/fd"))
    for path in "self/oom_score_adj", "sysvipc/msg", "sysvipc/sem", "sysvipc/shm":
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{path}") as file:
            found[path] = file.read()
    # The writable mounts of the namespaces, without `home` and `tmp` of the run, which the daemon empties.
    for path in "/dev/shm", "/dev/pts":
        with contextlib.suppress(FileNotFoundError):
            # Terminals have numbers. They end with the processes that use them.
            files = sorted(name for name in os.listdir(path) if not name.isdigit())
            found[path] = files, [attributes(os.path.join(path, name)) for name in ["", *files]]
    return found


def attributes(path):
    """Returns the attributes of a file that a run can change."""
    status = os.lstat(path)
    extended = os.listxattr(path, follow_symlinks=False)
    values = sorted((name, os.getxattr(path, name, follow_symlinks=False)) for name in extended)
    return status.st_mode, status.st_uid, status.st_gid, values


# The import of Ansible


def import_ansible():
    """Imports Ansible. Returns the text that the import printed on standard error. Each run prints the
    text again."""
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
    """Imports plugins to load the modules that they import, and then removes the plugins again.

    The name of a plugin in `sys.modules` does not contain its directory. An imported plugin would therefore
    hide a plugin of the same name beside a playbook. After this function, `sys.modules` contains no plugins
    beyond those that `ansible.cli.playbook` imports, and Ansible's plugin caches are empty.
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
        # The import fails if the module needs a package that is not installed, or if this version of
        # Ansible does not contain the module.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    keep_options(plugins)
    for name in sorted(set(sys.modules) - known, reverse=True):
        package, _, module = name.rpartition(".")
        if name == LOADING or package.count(".") == 2 and package.startswith("ansible.plugins."):
            vars(sys.modules[package]).pop(module, None)
            del sys.modules[name]
    if any([*loader.MODULE_CACHE.values(), *loader.PATH_CACHE.values()]):
        sys.exit("cannot remove the imported plugins from the caches of Ansible")


# Patches of Ansible
#
# Each of the three patches makes Ansible skip work that has the same result in every run. A patch is not
# applied if this version of Ansible lacks a function or attribute that the patch uses. Each run then does the
# work itself. The times below are CPU times of one run with one command, measured on one machine.


def keep_options(plugins):
    """Patch 1: the options of Ansible's own plugins are parsed once.

    Reason: a plugin loader parses the YAML documentation of each plugin to find its options. This takes
    30 ms per run in Ansible 2.14 and 2.16, and 80 ms in 2.19.
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
        # Documentation fragments can describe options too. `_extra_dirs` contains directories of fragments
        # beside the playbook, which may replace Ansible's. Then the options are parsed again.
        found = options.get((kind, name, path))
        if found and not known and not loader.fragment_loader._extra_dirs:
            constants.config.initialize_plugin_configuration_definitions(kind, name, found)
        else:
            original(self, name, module, path)

    loader.PluginLoader._load_config_defs = load


def read_options(plugins):
    """Returns the options of plugins by kind, name and file. Empties Ansible's caches afterwards."""
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
    """Patch 2: `ansible_builtin_runtime.yml`, which lists moved plugins, is parsed once.

    Reason: parsing this YAML file takes 170 to 210 ms per run.
    Versions: `_collection_finder._meta_yml_to_dict` is the same in 2.14, 2.16 and 2.19. In 2.14 and 2.15
    the import of Ansible parses the file, so the patch is not applied.
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
        # The parsed value is returned only once, because the caller may change it.
        return routes.pop() if routes and data == text else original(data, content)

    _collection_finder._meta_yml_to_dict = read


def keep_parsed_modules():
    """Patch 3: the source files in `module_utils` are parsed once.

    Reason: Ansible parses each file of `module_utils` that a module includes, to find further imports.
    This takes 110 ms per run in Ansible 2.14, and 170 ms in 2.16 and 2.19.
    Versions: in 2.14, 2.16 and 2.19 functions of `module_common` parse the files with the builtin `compile`.
    The patch defines a global `compile` in `module_common`, which hides the builtin.
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


# The separation of the controller from its runs


def release_shared():
    """Releases the resources that runs must not share with the controller. Returns the locks of
    `multiprocessing`, which each run creates again."""
    from ansible import constants

    shutil.rmtree(constants.DEFAULT_LOCAL_TMP)
    for handler in logging.root.handlers:
        # A handler opens its file again when it writes the next line.
        handler.close()
    # Locks of `multiprocessing` are in shared memory. A killed run would not release a lock, so each run gets
    # its own locks.
    kinds = multiprocessing.synchronize.Lock, multiprocessing.synchronize.RLock
    locks = [one for one in gc.get_objects() if isinstance(one, kinds)]
    for lock in locks:
        vars(lock).clear()
    return locks


def check_unshared(control):
    """Exits if a run would share memory, file descriptors or a thread with this process."""
    with open("/proc/self/maps") as file:
        memory = [line for line in file if line.split()[1].startswith("rw-s")]
    listed = {int(name) for name in os.listdir("/proc/self/fd")}
    # `listdir` also lists the file descriptor that it uses itself. That file descriptor is closed now.
    descriptors = {one for one in listed if is_open(one)} - {0, 1, 2, control.number}
    if memory or descriptors or len(os.listdir("/proc/self/task")) > 1:
        sys.exit(f"a run would share memory {memory}, file descriptors {descriptors} or a thread")


def is_open(descriptor):
    return os.path.exists(f"/proc/self/fd/{descriptor}")


def separate(control, descriptors, guard, script):
    """Gives the process of a run its own session, file descriptors and process name."""
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
    """Sets the values that a new process of Ansible would not share with another process."""
    from ansible import constants

    os.umask(0o077)
    os.chdir(run["directory"])
    random.seed()
    tempfile.tempdir = None
    multiprocessing.current_process().authkey = os.urandom(32)
    for lock in locks:
        lock.__init__(ctx=multiprocessing.get_context("fork"))
    # `ansible.utils.vars` chooses a random number when it is imported, and the ids of tasks begin with that
    # number. The module is imported again, so that each run has its own ids.
    importlib.reload(sys.modules["ansible.utils.vars"])
    importlib.invalidate_caches()
    constants.DEFAULT_LOCAL_TMP = constants.config.get_config_value("DEFAULT_LOCAL_TMP")


# The end of a run


def wait_for_run(control, child):
    """Waits until a run has ended, and kills the processes that the run left behind. Returns the exit
    status or the signal, and the number of killed processes."""
    killed = set()
    ended = os.pidfd_open(child)
    while control.has_line() or ended not in select.select([ended, control.socket], [], [])[0]:
        message = control.receive()
        if "stop" in message:
            try:
                os.killpg(child, signal.SIGTERM)
            except ProcessLookupError:
                # The process of the run has not created its process group yet.
                os.kill(child, signal.SIGTERM)
        elif "kill" in message:
            killed |= kill_all()
        else:
            sys.exit(f"unexpected message during a run: {message}")
    os.close(ended)
    killed |= kill_all()
    # The child is reaped last. Until then no other process can get its process id.
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    how = {"exit": code} if code >= 0 else {"signal": -code}
    return {**how, "killed": len(killed - {child})}


def kill_all():
    """Kills all processes except process 1 and this one. Returns their process ids."""
    killed = set()
    deadline = time.monotonic() + KILL_TIMEOUT
    while found := other_processes():
        if time.monotonic() > deadline:
            sys.exit(f"these processes did not end after SIGKILL: {sorted(found)}")
        killed |= found
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        time.sleep(0.001)
    return killed


def other_processes():
    """Returns the ids of the running processes, except process 1 and this one."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in (1, os.getpid()):
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b") ")[2].split()
                # If the first thread has ended, the state is "Z" although other threads run. Field 20 is
                # the number of threads (proc_pid_stat(5)).
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
    """Enters a Landlock domain, which forbids signalling and tracing processes outside of the domain."""
    # Every Landlock domain forbids links and renames across directories unless a rule allows them, so the
    # rule allows them everywhere.
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
