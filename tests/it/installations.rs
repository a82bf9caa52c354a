//! Ansible is used wherever people install it: by pip for one user, by pipx, in a virtual environment, through a
//! script of their own. Collections and roles in the home are found.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use loopabull_testbed::repository;

use crate::test_host::{TestHost, message, text};

/// The virtual environment from which the tests copy Ansible.
const VERSION: &str = "2.16.";

/// The home of a user, with an installation of Ansible.
struct Home {
    host: TestHost,
    venv: PathBuf,
}

impl Home {
    fn new() -> Self {
        let host = TestHost::new();
        host.write("message.json", message("m-1", "a", "{}"));
        let tasks = "    - debug: { msg: 'version {{ ansible_version.full }}' }\n";
        host.add_playbook("a", "", tasks);
        fs::create_dir_all(host.path("home/.local/bin")).unwrap();
        Self { host, venv: repository().join("target/ansible-2.16-venv") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.host.path("home").canonicalize().unwrap().join(name)
    }

    /// Copies a directory, with links instead of copies of files if both are on one file system.
    fn copy(&self, from: &Path, to: &str) {
        let copy = |options| {
            let copied = Command::new("cp").arg(options).arg(from).arg(self.path(to)).output();
            copied.unwrap().status.success()
        };
        if !copy("-al") {
            drop(fs::remove_dir_all(self.path(to)));
            assert!(copy("-a"), "cannot copy `{}`", from.display());
        }
    }

    /// Writes the `ansible-playbook` of an installation, which begins with these lines.
    fn write_program(&self, name: &str, lines: &str) {
        let script = fs::read_to_string(self.venv.join("bin/ansible-playbook")).unwrap();
        let (_, rest) = script.split_once('\n').unwrap();
        let path = self.path(name);
        drop(fs::remove_file(&path));
        fs::write(&path, format!("{lines}\n{rest}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs a command in the environment of the user. Returns its exit code and what it printed.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let path = format!("{}:/usr/bin:/bin", self.path(".local/bin").display());
        let mut command = self.host.command(arguments);
        let output = command.env("PATH", path).env("HOME", self.path("")).output().unwrap();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    }

    /// Runs the playbook, and checks that the copied Ansible ran it.
    fn check(&self) {
        let (_, said) = self.run(&["test", "a", "message.json"]);
        assert!(said.contains(&format!("version {VERSION}")), "{said}");
        let (code, said) = self.run(&["check"]);
        assert_eq!(code, Some(0), "{said}");
    }

    /// Returns the Python with which the virtual environment was made.
    fn real_python(&self) -> PathBuf {
        self.venv.join("bin/python").canonicalize().unwrap()
    }

    /// Copies the packages of the virtual environment as `pip install --user` installs them.
    fn add_user_packages(&self) {
        let libs = fs::read_dir(self.venv.join("lib")).unwrap().flatten();
        let lib = libs.map(|lib| lib.file_name().into_string().unwrap()).next().unwrap();
        fs::create_dir_all(self.path(&format!(".local/lib/{lib}"))).unwrap();
        let from = self.venv.join("lib").join(&lib).join("site-packages");
        self.copy(&from, &format!(".local/lib/{lib}/site-packages"));
    }
}

#[test]
fn an_ansible_that_pip_installed_for_one_user_is_used() {
    let home = Home::new();
    home.add_user_packages();
    let lines = format!("#!{}", home.real_python().display());
    home.write_program(".local/bin/ansible-playbook", &lines);
    // The directory has files that playbooks must not read.
    fs::create_dir_all(home.path(".local/share/keys")).unwrap();
    fs::write(home.path(".local/share/keys/key"), "private").unwrap();
    let look = format!("    - command: cat {}\n", home.path(".local/share/keys/key").display());
    home.check();
    home.host.add_playbook("b", "", &look);
    home.host.write("b.json", message("m-2", "b", "{}"));
    let (code, said) = home.run(&["test", "b", "b.json"]);
    let is_hidden = said.contains("No such file or directory") && !said.contains("private");
    assert!(code == Some(1) && is_hidden, "{said}");
}

#[test]
fn an_ansible_of_pipx_is_used() {
    let home = Home::new();
    fs::create_dir_all(home.path(".local/share/pipx/venvs")).unwrap();
    home.copy(&home.venv.clone(), ".local/share/pipx/venvs/ansible");
    let venv = home.path(".local/share/pipx/venvs/ansible");
    let program = ".local/share/pipx/venvs/ansible/bin/ansible-playbook";
    home.write_program(program, &format!("#!{}/bin/python", venv.display()));
    symlink(home.path(program), home.path(".local/bin/ansible-playbook")).unwrap();
    home.check();
    // If the path is too long for the kernel, the shell starts Python.
    let lines = format!("#!/bin/sh\n'''exec' {}/bin/python \"$0\" \"$@\"\n' '''", venv.display());
    home.write_program(program, &lines);
    home.check();
}

#[test]
fn a_script_that_starts_another_ansible_is_named_with_the_setting() {
    let home = Home::new();
    home.copy(&home.venv.clone(), "venv");
    let program = home.path("venv/bin/ansible-playbook");
    home.write_program(
        "venv/bin/ansible-playbook",
        &format!("#!{}/bin/python", home.path("venv").display()),
    );
    let wrapper = home.path(".local/bin/ansible-playbook");
    fs::write(&wrapper, format!("#!/bin/sh\nexec {} \"$@\"\n", program.display())).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let (code, said) = home.run(&["check"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("name that one with `ansible_playbook` under `[playbook]`"), "{said}");
    let setting = format!("[playbook]\nansible_playbook = '{}'\n", program.display());
    home.host.write("loopabull.toml", setting);
    let (code, said) = home.run(&["check", "--config", "loopabull.toml"]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn collections_and_roles_in_the_home_are_found() {
    let home = Home::new();
    let role = home.path(".ansible/roles/mine/tasks");
    let module = home.path(".ansible/collections/ansible_collections/my/own/plugins/filter");
    fs::create_dir_all(&role).unwrap();
    fs::create_dir_all(&module).unwrap();
    fs::write(role.join("main.yml"), "- debug: { msg: \"{{ 'x' | my.own.twice }}\" }\n").unwrap();
    let filter = "class FilterModule:\n    def filters(self):\n        return {'twice': lambda text: text * 2}\n";
    fs::write(module.join("twice.py"), filter).unwrap();
    home.host.add_playbook("a", "", "    - include_role: { name: mine }\n");
    let (code, said) = home.run(&["test", "a", "message.json"]);
    assert!(code == Some(0) && said.contains("\"msg\": \"xx\""), "{said}");
}

#[test]
fn a_password_file_in_the_home_is_named_with_the_lines_to_write() {
    let home = Home::new();
    fs::write(home.path(".vault_pass"), "s3cret-of-the-vault\n").unwrap();
    let config = "[defaults]\nvault_password_file = ~/.vault_pass\n";
    home.host.write("playbooks/ansible.cfg", config);
    let (code, said) = home.run(&["check"]);
    assert_eq!(code, Some(1), "{said}");
    let line = format!("`vault = {{ file = \"{}\" }}`", home.path(".vault_pass").display());
    assert!(said.contains(&line) && said.contains("`vault_password = \"vault\"`"), "{said}");
    home.host.write("playbooks/ansible.cfg", "");
    let grant = format!("vault = {{ file = '{}' }}", home.path(".vault_pass").display());
    let manifest = format!("[ansible]\nvault_password = 'vault'\n[grants.secrets]\n{grant}\n");
    home.host.add_playbook("a", &manifest, "    - ping:\n");
    let (code, said) = home.run(&["check"]);
    assert_eq!(code, Some(0), "{said}");
}
