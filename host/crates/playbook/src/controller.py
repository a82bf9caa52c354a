# SPDX-License-Identifier: Apache-2.0 OR MIT
"""A warm Ansible controller: imports Ansible once, and forks a process for each run.

Started as `PYTHON warm.py` with the environment of a run, in a process namespace of its own
(LOOPABULL_PRIVATE_PIDS=1), as a child of its process 1, with a stream socket as the descriptor that
LOOPABULL_CONTROL_FD names. On it go lines of JSON; < is from the daemon, > is to it.

  > {"ready": {"ansible": "2.14.18", "python": "3.11.2", "guard": "landlock", "watch": [PATH...]}}
      When one of the paths changes, comes or goes, a new controller is to be started. Without the
      guard "landlock", which needs Linux 6.12, a run under our own user can kill us.
  < {"run": {"arguments": [TEXT...], "directory": PATH}}
      With standard output, standard error and the results by SCM_RIGHTS on its first byte. In the
      run the results have the number of our socket, which LOOPABULL_RESULTS_FD says.
  > {"taken": {}}
  < {"go": true}          Not before it, the run is forked.
  > {"ended": {"exit": 2, "killed": 3, "spent": ""}}, or "signal": 9 in the place of the exit
      `killed` is how many processes were left behind. There is none any more. `spent` tells what the
      run has changed that the next would find; if there is something, this process ends.
  < {"stop": true}        SIGTERM to the process group of the run.
  < {"kill": true}        SIGKILL to everything.

There is one run at a time. When the socket ends, everything is killed. If we end without a word, a
run that was under way is lost. No state of a run is ever in this process: it has imported what runs
import, and has read what belongs to Ansible itself.
"""

import ast
import atexit
import contextlib
import ctypes
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

# Packages whose plugins are imported, for what they import in their turn.
PLUGINS = (
    "action become cache callback connection filter inventory lookup shell strategy test vars"
).split()
# All that it does is to say that it is deprecated.
DEPRECATED = "ansible.plugins.cache.base"
# To import this package loads a plugin, which may be another one beside a playbook.
LOADING = "ansible.plugins.inventory"
# What else a small play imports.
ALSO = (
    "ansible.executor.discovery ansible.executor.process.worker ansible.modules"
    " ansible.playbook.handler_task_include ansible.playbook.role_include"
    " ansible.plugins.doc_fragments ansible.utils.shlex multiprocessing.popen_fork"
    " multiprocessing.pool pty urllib.request"
).split()
# How many seconds processes may take to end after SIGKILL.
PATIENCE = 5

LIBC = ctypes.CDLL(None, use_errno=True)
SET_DUMPABLE, SET_NAME, SET_NO_NEW_PRIVS = 4, 15, 38
# See linux/landlock.h. The numbers of the calls are the same on x86_64 and aarch64.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
GET_VERSION, PATH_BENEATH, REFER, SCOPE_SIGNAL = 1, 1, 1 << 13, 1 << 1


def main():
    control = Control(int(os.environ.pop("LOOPABULL_CONTROL_FD")))
    if os.environ.pop("LOOPABULL_PRIVATE_PIDS", "") != "1" or os.getppid() != 1 or others():
        sys.exit("not alone with process 1 in a namespace of processes")
    script = shutil.which("ansible-playbook") or sys.exit("no `ansible-playbook` on the PATH")
    with open(script, "rb") as file:
        # It ends here if it is not Python.
        compile(file.read(), script, "exec")
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.path.dirname(os.path.realpath(script))
    os.umask(0o077)
    imported = {}
    # The first that is registered is the last that is called.
    atexit.register(leave, imported)
    known = set(sys.modules)
    said = import_ansible()
    locks = let_go()
    gc.collect()
    gc.freeze()
    control_process(SET_DUMPABLE, 0)
    check_unshared(control)
    guard = kind_of_guard()
    control.say(
        ready={
            "ansible": sys.modules["ansible.release"].__version__,
            "python": platform.python_version(),
            "guard": guard,
            "watch": watched(script),
        }
    )
    run, descriptors = serve(control)
    # This is a run from here on.
    separate(control, descriptors, guard, script)
    os.environ["LOOPABULL_RESULTS_FD"] = str(control.number)
    begin_anew(run, locks)
    imported.update((name, sys.modules[name]) for name in set(sys.modules) - known)
    # Never given back.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(imported))
    os.write(2, said)
    sys.argv = [script, *run["arguments"]]
    runpy.run_path(script, run_name="__main__")


class Control:
    """The daemon's socket."""

    def __init__(self, number):
        self.number = number
        self.socket = socket.socket(fileno=number)
        os.set_inheritable(number, False)
        self.text = b""
        self.descriptors = []

    def say(self, **words):
        # If nobody is there to hear it, the next thing that we hear is the end.
        with contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(words).encode() + b"\n")

    def has_line(self):
        return b"\n" in self.text

    def hear(self):
        """Returns the next message; at the end, kills everything and does not return."""
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


def leave(imported):
    """Keeps Python from taking apart, at the end of a run, what was imported before the run.

    That would change every page of it, which takes longer than a small play. What the run itself
    has imported and made does come to its end.
    """
    for name in imported:
        sys.modules.pop(name, None)


def import_ansible():
    """Makes everything ready. Returns what was said meanwhile, which each run says for itself."""
    saved = os.dup(2)
    with open(os.memfd_create("said"), "w+b") as said:
        os.dup2(said.fileno(), 2)
        try:
            importlib.import_module("ansible.cli.playbook")
            import_plugins()
            read_routes()
            parse_modules()
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            said.seek(0)
            text = said.read()
            os.write(2, text)
    return text


def import_plugins():
    """Imports plugins for what they import in their turn, and reads which options they have.

    Then forgets them. A plugin is in `sys.modules` under a name without its directory, where it
    would hide one of the same name beside a playbook: each run finds these names as they were after
    the import of `ansible.cli.playbook`, and loaders and configuration that know no plugin.
    """
    from ansible import constants
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
        # It may need what is not here, or be of another version of Ansible.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
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
    for name in sorted(set(sys.modules) - known, reverse=True):
        package, _, module = name.rpartition(".")
        if name == LOADING or package.count(".") == 2 and package.startswith("ansible.plugins."):
            vars(sys.modules[package]).pop(module, None)
            del sys.modules[name]
    if any([*loader.MODULE_CACHE.values(), *loader.PATH_CACHE.values()]):
        sys.exit("plugins are loaded")
    hand_out_options(options)


def hand_out_options(options):
    """Lets a loader take the options of a plugin from these, if they are those it would read."""
    from ansible import constants
    from ansible.plugins import loader

    original = loader.PluginLoader._load_config_defs

    def load(self, name, module, path):
        kind = loader.get_plugin_class(self.class_name)
        known = constants.config.has_configuration_definition(kind, name)
        # Options may be described by fragments, which may be others beside a playbook.
        found = options.get((kind, name, path))
        if found and not known and not loader.fragment_loader._extra_dirs:
            constants.config.initialize_plugin_configuration_definitions(kind, name, found)
        else:
            original(self, name, module, path)

    loader.PluginLoader._load_config_defs = load


def read_routes():
    """Parses which plugins of Ansible itself have moved, if that is not done yet."""
    from ansible.utils.collection_loader import _collection_finder

    original = _collection_finder._meta_yml_to_dict
    path = os.path.join(os.path.dirname(sys.modules["ansible"].__file__), "config")
    with open(os.path.join(path, "ansible_builtin_runtime.yml"), "rb") as file:
        text = file.read()
    # Of version 2.14 and 2.15 the import does it.
    if "ansible_collections.ansible.builtin" in sys.modules:
        return
    routes = [original(text, ("ansible.builtin", "runtime.yml"))]

    def read(data, content):
        # Given away once: who gets it may change it.
        return routes.pop() if routes and data == text else original(data, content)

    _collection_finder._meta_yml_to_dict = read


def parse_modules():
    """Parses the source that most modules get, in which Ansible looks for further imports."""
    from ansible.executor import module_common

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


def let_go():
    """Lets go of all that would be shared with a run. Returns the locks, which each makes anew."""
    from ansible import constants

    shutil.rmtree(constants.DEFAULT_LOCAL_TMP)
    for handler in logging.root.handlers:
        # It opens its file when it has something to write.
        handler.close()
    # Locks of multiprocessing are in shared memory, and one who is killed does not release his.
    kinds = multiprocessing.synchronize.Lock, multiprocessing.synchronize.RLock
    locks = [one for one in gc.get_objects() if isinstance(one, kinds)]
    for lock in locks:
        vars(lock).clear()
    return locks


def check_unshared(control):
    """Ends this process if it has something that a run could use to change it."""
    with open("/proc/self/maps") as file:
        memory = [line for line in file if line.split()[1].startswith("rw-s")]
    listed = {int(name) for name in os.listdir("/proc/self/fd")}
    # One is of the list itself, and closed by now.
    descriptors = {one for one in listed if is_open(one)} - {0, 1, 2, control.number}
    if memory or descriptors or len(os.listdir("/proc/self/task")) > 1:
        sys.exit(f"a run would share memory {memory}, descriptors {descriptors} or a thread")


def is_open(descriptor):
    return os.path.exists(f"/proc/self/fd/{descriptor}")


def watched(script):
    """Returns the paths on which it depends whether we still are what `ansible-playbook` is."""
    from ansible import constants, release

    paths = [script, sys.executable, __file__, release.__file__, "/etc/localtime", *sys.path[1:]]
    modules = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    paths += [os.path.dirname(file) for file in modules if file]
    paths += [constants.CONFIG_FILE or "/etc/ansible/ansible.cfg"]
    paths += [constants.PLUGIN_FILTERS_CFG or "/etc/ansible/plugin_filters.yml"]
    paths += [f"{path}/ansible_collections" for path in constants.COLLECTIONS_PATHS]
    return sorted({path for path in paths if os.path.isabs(path)})


def serve(control):
    """Does what the daemon says. Returns only in a run, with what is to be run."""
    before = condition()
    while True:
        message = control.hear()
        if "run" not in message:
            # It is for a run that has ended meanwhile.
            continue
        run, descriptors, control.descriptors = message["run"], control.descriptors, []
        if len(descriptors) != 3:
            sys.exit(f"a run needs three descriptors, and has {len(descriptors)}")
        control.say(taken={})
        if "go" not in control.hear():
            # Whoever asked for it has given up, and starts it in another way.
            for descriptor in descriptors:
                os.close(descriptor)
            continue
        child = os.fork()
        if child == 0:
            return run, descriptors
        for descriptor in descriptors:
            os.close(descriptor)
        ended = watch(control, child)
        try:
            after = condition()
        except Exception as error:
            # The run has ended all the same, and must be told so.
            after = {"what can be seen": str(error)}
        changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        control.say(ended={**ended, "spent": ", ".join(changed)})
        if changed:
            sys.exit(0)


def condition():
    """Returns what a run can change of this process, or leave in its namespaces."""
    limits = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    found = {name: resource.getrlimit(getattr(resource, name)) for name in limits}
    found["the processors"] = os.sched_getaffinity(0)
    found["the priority"] = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)
    found["the descriptors"] = sorted(os.listdir("/proc/self/fd"))
    for path in "self/oom_score_adj", "sysvipc/msg", "sysvipc/sem", "sysvipc/shm":
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{path}") as file:
            found[path] = file.read()
    with contextlib.suppress(FileNotFoundError):
        of = os.stat("/dev/shm")
        marks = sorted((name, os.getxattr("/dev/shm", name)) for name in os.listxattr("/dev/shm"))
        left = sorted(os.listdir("/dev/shm"))
        found["/dev/shm"] = of.st_mode, of.st_uid, of.st_gid, marks, left
    return found


def watch(control, child):
    """Waits until a run has ended, kills what it left, and returns how it ended."""
    killed = set()
    ended = os.pidfd_open(child)
    while control.has_line() or ended not in select.select([ended, control.socket], [], [])[0]:
        message = control.hear()
        if "stop" in message:
            try:
                os.killpg(child, signal.SIGTERM)
            except ProcessLookupError:
                # It does not lead its group yet.
                os.kill(child, signal.SIGTERM)
        elif "kill" in message:
            killed |= kill_all()
        else:
            sys.exit(f"during a run: {message}")
    os.close(ended)
    killed |= kill_all()
    # Not before, lest another process gets its number.
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    how = {"exit": code} if code >= 0 else {"signal": -code}
    return {**how, "killed": len(killed - {child})}


def kill_all():
    """Kills everything, and returns what there was."""
    killed = set()
    deadline = time.monotonic() + PATIENCE
    while found := others():
        if time.monotonic() > deadline:
            sys.exit(f"processes do not end: {sorted(found)}")
        killed |= found
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        time.sleep(0.001)
    return killed


def others():
    """Returns the processes that are here beside process 1 and this one, and have not ended."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in (1, os.getpid()):
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b") ")[2].split()
                # The first thread may have ended, and others not: proc_pid_stat(5), num_threads.
                if fields[0] not in (b"Z", b"X") or int(fields[17]) > 1:
                    found.add(int(name))
    return found


def separate(control, descriptors, guard, script):
    """Parts a run from the controller, from its descriptors first of all."""
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


def kind_of_guard():
    with contextlib.suppress(OSError):
        if call(CREATE_RULESET, 0, 0, GET_VERSION) >= 6:
            return "landlock"
    return "dumpable"


def enter_domain():
    """Enters a Landlock domain that denies only signals to processes outside, and to trace them."""
    # To link and rename across directories is denied unless a rule allows it.
    attributes = struct.pack("QQQ", REFER, 0, SCOPE_SIGNAL)
    ruleset = call(CREATE_RULESET, attributes, len(attributes), 0)
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    call(ADD_RULE, ruleset, PATH_BENEATH, struct.pack("=Qi", REFER, root), 0)
    call(RESTRICT_SELF, ruleset, 0)
    os.close(root)
    os.close(ruleset)


def call(number, *arguments, function=LIBC.syscall):
    """Makes a system call for which glibc has no function."""
    as_c = [ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_long(a) for a in arguments]
    result = function(ctypes.c_long(number), *as_c)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{function.__name__} {number}")
    return result


def control_process(option, value):
    call(option, value, 0, 0, 0, function=LIBC.prctl)


def begin_anew(run, locks):
    """Makes anew what is another for each process that imports Ansible."""
    from ansible import constants

    os.umask(0o077)
    os.chdir(run["directory"])
    random.seed()
    tempfile.tempdir = None
    multiprocessing.current_process().authkey = os.urandom(32)
    for lock in locks:
        lock.__init__(ctx=multiprocessing.get_context("fork"))
    # The identifiers of tasks begin with a random number.
    importlib.reload(sys.modules["ansible.utils.vars"])
    importlib.invalidate_caches()
    constants.DEFAULT_LOCAL_TMP = constants.config.get_config_value("DEFAULT_LOCAL_TMP")


if __name__ == "__main__":
    main()
