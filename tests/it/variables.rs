//! Keys of a message become variables of a playbook only if its manifest names them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use loopabull_testbed::ansible_playbooks;

use crate::test_host::{TestHost, message, text};

/// Prints the names that Ansible sets for each play, the functions of its templates, the words of Jinja, and
/// the variables that the options of Ansible's own plugins are read from.
const RESERVED: &str = r#"
import glob, os, re, ansible, jinja2, jinja2.parser, yaml
import ansible.constants as C
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible.vars.manager import VariableManager
loader = DataLoader()
inventory = InventoryManager(loader=loader, sources=["localhost,"])
manager = VariableManager(loader=loader, inventory=inventory)
names = set(manager.get_vars(host=inventory.get_host("localhost")))
names |= set(Templar(loader=loader, variables={}).environment.globals)
names |= {"loop", "self", "super", "caller", "varargs", "kwargs", "true", "false", "none", "not", "and", "or"}
names |= set(getattr(C, "INTERNAL_STATIC_VARS", ())) | set(C.COMMON_CONNECTION_VARS)
base = os.path.dirname(ansible.__file__)
for path in glob.glob(base + "/plugins/**/*.py", recursive=True):
    found = re.search(r"DOCUMENTATION\s*=\s*r?('''|\"\"\")(.*?)\1", open(path).read(), re.S)
    try:
        options = yaml.safe_load(found.group(2)).get("options") if found else None
    except yaml.YAMLError:
        continue
    for option in (options or {}).values():
        names |= {name["name"] for name in (option or {}).get("vars") or []}
for option in yaml.safe_load(open(base + "/config/base.yml")).values():
    names |= {name["name"] for name in option.get("vars") or []}
print("\n".join(sorted(name for name in names if name.isidentifier() and name != "_z_test_entry")))
"#;

/// A lookup plugin like one of a popular collection, which reads the program to start from a variable.
const PLUGIN: &str = r#"
DOCUMENTATION = """
name: program
options:
  program:
    default: /bin/true
    vars: [{name: sops_binary}]
"""
from ansible.plugins.lookup import LookupBase

class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        return [self.get_option("program")]
"#;

/// Returns the Python with which a version of Ansible runs.
fn python(ansible: &Path) -> PathBuf {
    let script = fs::read_to_string(ansible).unwrap();
    script.lines().next().unwrap().strip_prefix("#!").unwrap().trim().into()
}

#[test]
fn only_keys_that_the_manifest_names_become_variables() {
    for ansible in ansible_playbooks() {
        let host = TestHost::new();
        host.write(
            "loopabull.toml",
            format!("[playbook]\nansible_playbook = '{}'\n", ansible.display()),
        );
        fs::create_dir(host.path("playbooks/lookup_plugins")).unwrap();
        host.write("playbooks/lookup_plugins/program.py", PLUGIN);
        let got = host.shared("got");
        let tasks = format!(
            "    - copy:
        dest: '{}'
        content: \"{{{{ branch }}}}|{{{{ sops_binary | default('none') }}}}|{{{{ lookup('program') }}}}\"\n",
            got.display()
        );
        host.add_playbook("a", "[ansible]\nvariables = ['branch', 'commit']\n", &tasks);
        let body = r#"{"branch":"{{ x }}","sops_binary":"/usr/bin/env","lookup":"x","ansible_connection":"ssh",
                       "hostvars":{},"omit":"x"}"#;
        host.write("message.json", message("m-1", "a", body));
        let output = host.run(&["--config", "loopabull.toml", "test", "a", "message.json"]);
        assert!(output.status.success(), "{}", text(&output.stdout));
        assert_eq!(fs::read_to_string(&got).unwrap(), "{{ x }}|none|/bin/true");
    }
}

#[test]
fn names_with_a_meaning_for_ansible_are_refused() {
    for ansible in ansible_playbooks() {
        let output = Command::new(python(&ansible)).args(["-c", RESERVED]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let names = text(&output.stdout);
        let names: Vec<&str> = names.lines().collect();
        assert!(names.len() > 100 && names.contains(&"lookup"), "{names:?}");
        let host = TestHost::new();
        host.add_playbook("a", &format!("[ansible]\nvariables = {names:?}\n"), "    - ping:\n");
        let output = host.run(&["check"]);
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stdout);
        let missing: Vec<_> =
            names.iter().filter(|name| !said.contains(&format!("`{name}` already has"))).collect();
        assert!(missing.is_empty(), "{} gives a meaning to {missing:?}", ansible.display());
    }
}

/// The playbook of an old looper finds the keys of the message as variables.
#[test]
fn check_proposes_the_variables_of_an_old_playbook() {
    let host = TestHost::new();
    let tasks = "    - shell: 'echo {{ commit.id }} {{ own }}'
      register: told
      when: branch == 'main' and told is not defined
    - set_fact: { made: '{{ told.stdout }}' }
    - debug: { msg: '{{ made }} {{ item.x }} {{ each }} {% set y = 1 %}{{ y }} {{ ansible_facts }} {{ msg }}' }
      loop: '{{ commits | map(attribute=\"id\") }}'
      loop_control: { loop_var: each }
    - assert: { that: [repo.name is defined, 'broken {'] }
";
    host.add_playbook("a", "", tasks);
    let text_of = |host: &TestHost| fs::read_to_string(host.path("playbooks/a.yml")).unwrap();
    host.write(
        "playbooks/a.yml",
        text_of(&host).replace("  tasks:", "  vars: { own: 1 }\n  tasks:"),
    );
    let output = host.run(&["check"]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}");
    let proposal =
        r#"write `variables = ["branch", "commit", "commits", "repo"]` under `[ansible]`"#;
    assert!(said.contains(proposal), "{said}");
    host.add_playbook("a", "[ansible]\nvariables = 'top-level'\n", tasks);
    let said = text(&host.run(&["check"]).stdout);
    assert!(said.contains(r#"as in `variables = ["branch", "commit"]`"#), "{said}");
    let all = "[ansible]\nvariables = ['branch', 'commit', 'commits', 'repo', 'own']\n";
    host.add_playbook("a", all, tasks);
    let output = host.run(&["check"]);
    let said = text(&output.stdout);
    assert!(output.status.success() && !said.contains("does not define"), "{said}");
}
