# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Prints the variables that a playbook uses and does not define, one name a line.

The command `check` runs this program in the sandbox of playbooks, as `PYTHON undefined_names.py PLAYBOOK`. It
reads the playbook with Ansible's own loader, and its templates with Jinja's parser. It evaluates nothing. It
does not look into roles, inventories and other files, which may define some of the names.
"""

import sys

from ansible.parsing.dataloader import DataLoader
from jinja2 import Environment, TemplateSyntaxError, nodes

# The keys whose values are expressions without braces.
EXPRESSIONS = {"when", "failed_when", "changed_when", "until", "that"}
# The keys whose values name a variable that the play sets.
NAMES = {"register", "loop_var", "index_var"}
# The keys whose values are mappings of variables that the play sets.
MAPPINGS = {"vars", "set_fact", "ansible.builtin.set_fact"}

PARSER = Environment(extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"])


def names_of(template, used):
    """Adds the names that a template reads and does not set."""
    try:
        parsed = PARSER.parse(template)
    except TemplateSyntaxError:
        return
    found = list(parsed.find_all(nodes.Name))
    own = {name.name for name in found if name.ctx != "load"}
    used.update(name.name for name in found if name.ctx == "load" and name.name not in own)


def walk(value, key, used, defined):
    """Collects the names that a part of a playbook uses and defines. `key` is the key of the part."""
    if isinstance(value, dict):
        if key in MAPPINGS:
            defined.update(map(str, value))
        for inner, part in value.items():
            walk(part, str(inner), used, defined)
    elif isinstance(value, (list, tuple)):
        for part in value:
            if key == "vars_prompt" and isinstance(part, dict):
                defined.add(str(part.get("name")))
            walk(part, key, used, defined)
    elif isinstance(value, str):
        text = str(value)
        if key in NAMES:
            defined.add(text)
        elif "{{" in text or "{%" in text:
            names_of(text, used)
        elif key in EXPRESSIONS:
            names_of("{{ " + text + " }}", used)


used, defined = set(), set()
walk(DataLoader().load_from_file(sys.argv[1]), None, used, defined)
for name in sorted(used - defined):
    print(name)
