# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Prints the settings of Ansible that the daemon adds to, as one line of JSON.

The daemon runs this program in the sandbox of playbooks, as `PYTHON ansible_settings.py`, with the environment
of a run but without its own values of these settings. Ansible itself reads its configuration, so every form of
the configuration file counts. The line begins with MARKER, because plugins may print something else.
"""

import json
import sys

try:
    from ansible import constants
    from ansible.plugins.loader import connection_loader, shell_loader
except ImportError:
    # `ansible-playbook` is another program, which starts Ansible with another Python.
    sys.exit(0)

MARKER = "loopabull-settings "


def setting(name, kind=None, plugin=None):
    """Returns the value of a setting, or None if it has its default value."""
    value, origin = constants.config.get_config_value_and_origin(
        name, plugin_type=kind, plugin_name=plugin
    )
    return None if origin == "default" else value


def plugin_setting(loader, kind, plugin, name):
    # Loading the plugin tells Ansible the settings of the plugin.
    return setting(name, kind, plugin) if loader.get(plugin, class_only=True) else None


print(
    MARKER
    + json.dumps(
        {
            "callback_plugins": setting("DEFAULT_CALLBACK_PLUGIN_PATH"),
            "inventory": setting("DEFAULT_HOST_LIST"),
            "remote_tmp": plugin_setting(shell_loader, "shell", "sh", "remote_tmp"),
            "ssh_args": plugin_setting(connection_loader, "connection", "ssh", "ssh_args"),
        }
    )
)
