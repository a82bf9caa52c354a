# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Prints the settings of Ansible that the daemon adds to, as one line of JSON.

The daemon runs this program in the sandbox of playbooks, as `PYTHON ansible_settings.py`, with the environment
of a run but without its own values of these settings. Ansible itself reads its configuration, so every form of
the configuration file counts. The line begins with MARKER, because plugins may print something else.
"""

import json
import os
import sys

MARKER = "loopabull-settings "

try:
    from ansible import constants
    from ansible.plugins.loader import connection_loader, shell_loader
except ModuleNotFoundError as error:
    if error.name != "ansible":
        raise
    # `ansible-playbook` is another program, which starts Ansible with another Python.
    print(MARKER + "none")
    sys.exit(0)


def setting(name, kind=None, plugin=None):
    """Returns the value of a setting, or None if it has its default value."""
    value, origin = constants.config.get_config_value_and_origin(
        name, plugin_type=kind, plugin_name=plugin
    )
    return None if origin == "default" else value


def unreadable(path):
    """Returns the path of a file that cannot be read here. In its name, `~` is the home of a run."""
    if not path or os.access(path, os.R_OK):
        return None
    home = os.path.expanduser("~")
    return "~" + path.removeprefix(home) if path.startswith(home + "/") else path


def plugin_setting(loader, kind, plugin, name):
    # Loading the plugin tells Ansible the settings of the plugin.
    return setting(name, kind, plugin) if loader.get(plugin, class_only=True) else None


print(
    MARKER
    + json.dumps(
        {
            "callback_plugins": setting("DEFAULT_CALLBACK_PLUGIN_PATH"),
            "collections": setting("COLLECTIONS_PATHS"),
            "inventory": setting("DEFAULT_HOST_LIST"),
            "remote_tmp": plugin_setting(shell_loader, "shell", "sh", "remote_tmp"),
            "roles": setting("DEFAULT_ROLES_PATH"),
            "ssh_args": plugin_setting(connection_loader, "connection", "ssh", "ssh_args"),
            "unreadable_vault": unreadable(setting("DEFAULT_VAULT_PASSWORD_FILE")),
        }
    )
)
