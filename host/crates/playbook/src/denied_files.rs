//! Finds the files that a failed run names and that are not granted.
//!
//! In its own root file system a playbook is told that a file does not exist, although only its grants lack it. The texts
//! come from outside, so they are only compared with the grants: no path in them is opened or looked for.

use std::path::{Component, Path, PathBuf};

use loopabull_launcher::{Files, Layer};
use loopabull_model::{Access, Attempt, DeniedFile, Grants, LayerState};

/// The maximum number of named files.
const MAX_FILES: usize = 3;
/// The beginning of Ansible's own errors, in 2.14 to 2.21.
const ERROR: &str = "ERROR";
/// The words of Ansible and the C library about a file that cannot be used.
const REFUSALS: [&str; 6] = [
    "Could not find or access",
    "No such file or directory",
    "Permission denied",
    READ_ONLY,
    "does not exist",
    "was not found",
];
const READ_ONLY: &str = "Read-only file system";
/// The words of Ansible about a file on the machine where it runs.
const HERE: &str = "Ansible Controller";
/// The names of this machine in inventories. The files of other machines are not subject to grants.
const THIS_MACHINE: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// The directories of which a run has its own, or that hold no files.
const OWN: [&str; 5] = ["/dev", "/proc", "/sys", "/tmp", "/var/tmp"];

/// Returns the files that the texts of a failed run name and that it could not use. `files` are all files that it could
/// use.
pub(crate) fn find(attempt: &Attempt, files: &Files, grants: &Grants) -> Vec<DeniedFile> {
    if !has_files_layer(attempt) {
        return Vec::new();
    }
    let read_only = grants.dirs.iter().filter(|dir| dir.access == Access::ReadOnly);
    let read_only: Vec<_> = read_only.map(|dir| dir.host.as_path()).collect();
    let mut found = Vec::new();
    for text in texts(attempt) {
        for file in denied(&text, files, &read_only) {
            if found.len() < MAX_FILES && !found.contains(&file) {
                found.push(file);
            }
        }
    }
    found
}

fn has_files_layer(attempt: &Attempt) -> bool {
    let mut layers = attempt.playbook.iter().flat_map(|report| &report.layers);
    layers.any(|layer| layer.layer == Layer::Files.name() && layer.state == LayerState::Active)
}

/// Returns the messages of the tasks that failed on this machine or, if no task failed, Ansible's own error at the end
/// of its output.
fn texts(attempt: &Attempt) -> Vec<String> {
    let results = attempt.playbook.iter().flat_map(|report| &report.results);
    let failures: Vec<_> = results.flat_map(|results| &results.failures).collect();
    let printed = &attempt.output.text;
    match printed.find(ERROR).filter(|_| failures.is_empty()) {
        // Ansible wraps its errors, also after hyphens.
        Some(start) => vec![printed[start..].replace("-\n", "-").replace('\n', " ")],
        None => failures
            .iter()
            .filter(|failure| {
                THIS_MACHINE.contains(&failure.host.as_str())
                    || failure.message.as_str().contains(HERE)
            })
            .map(|failure| failure.message.as_str().to_owned())
            .collect(),
    }
}

/// Returns the files that a text about a failure names and that are not granted, or only for reading.
fn denied(text: &str, files: &Files, read_only: &[&Path]) -> Vec<DeniedFile> {
    if !REFUSALS.iter().any(|refusal| text.contains(refusal)) {
        return Vec::new();
    }
    let visible: Vec<PathBuf> = files.all().chain(OWN.map(Path::new)).map(Path::to_owned).collect();
    let access = |path: &Path| {
        if read_only.iter().any(|tree| path.starts_with(tree)) {
            return text.contains(READ_ONLY).then_some(Access::ReadWrite);
        }
        // The playbook sees also the directories above what is granted.
        let is_visible = |tree: &PathBuf| path.starts_with(tree) || tree.starts_with(path);
        (!visible.iter().any(is_visible)).then_some(Access::ReadOnly)
    };
    let named = paths(text).filter_map(|path| Some((path, access(path)?)));
    named.map(|(path, access)| DeniedFile { path: path.display().to_string(), access }).collect()
}

/// Returns the absolute paths in a text.
fn paths(text: &str) -> impl Iterator<Item = &Path> {
    let is_border = |c: char| c.is_whitespace() || "'\"`,;()[]{}<>|=".contains(c);
    let words = text.split(is_border).filter_map(|word| {
        let word = word.trim_matches([':', '.', '…']);
        // As in `No such file or directory:/srv/x`, but not as in `https://example.com/`.
        let start = if word.starts_with('/') { 0 } else { word.find(":/")? + 1 };
        Some(&word[start..])
    });
    let is_normal =
        |path: &&Path| path.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    words.filter(|path| path.len() > 1 && !path.starts_with("//")).map(Path::new).filter(is_normal)
}

#[cfg(test)]
mod tests {
    use loopabull_model::{LayerReport, Outcome, Output, PlaybookReport, Results, TaskFailure};

    use super::*;

    #[test]
    fn paths_are_found_in_errors() {
        let text = "Could not find or access '/srv/a b' (msg=/srv/c): [Errno 13] Permission denied:'/srv/d.txt'. \
                    https://example.com/e roles/f /srv/g. dest:/srv/h / //srv/i /srv/../j";
        let found: Vec<_> = paths(text).map(|path| path.display().to_string()).collect();
        assert_eq!(found, ["/srv/a", "/srv/c", "/srv/d.txt", "/srv/g", "/srv/h"]);
    }

    #[test]
    fn files_outside_of_the_grants_are_denied() {
        let files = Files {
            system: true,
            read: vec!["/srv/granted".into()],
            write: vec!["/srv/written".into()],
        };
        let find = |text: &str| {
            let found = denied(text, &files, &[Path::new("/srv/granted")]).into_iter();
            found.map(|file| (file.path, file.access)).collect::<Vec<_>>()
        };
        let other = ("/srv/other/file".to_owned(), Access::ReadOnly);
        assert_eq!(find("/srv/other/file does not exist"), [other]);
        assert_eq!(find("/srv/other/file is too long"), []);
        assert_eq!(
            find("/srv/granted/file, /srv/written/file, /srv /etc/hosts does not exist"),
            []
        );
        let read_only = ("/srv/granted/file".to_owned(), Access::ReadWrite);
        assert_eq!(find("Read-only file system: '/srv/granted/file'"), [read_only]);
        assert_eq!(find("Permission denied: '/srv/granted/file'"), []);
    }

    #[test]
    fn the_files_of_other_machines_are_left_out() {
        let count = |host: &str, message: &str, printed: &str| {
            let failure = (!host.is_empty()).then(|| TaskFailure {
                host: host.into(),
                task: "t".into(),
                action: "a".into(),
                message: message.into(),
                is_unreachable: false,
            });
            let results = Results { failures: failure.into_iter().collect(), ..Results::default() };
            let files = LayerReport {
                layer: Layer::Files.name().to_owned(),
                state: LayerState::Active,
                detail: "".into(),
            };
            let report = PlaybookReport {
                results: Some(results),
                layers: vec![files],
                ..PlaybookReport::default()
            };
            let output = Output { text: printed.to_owned(), dropped: 0 };
            let outcome = Outcome::Exit { status: "2".into() };
            let attempt =
                Attempt { output, playbook: Some(report), ..Attempt::without_output(outcome) };
            find(&attempt, &Files::default(), &Grants::default()).len()
        };
        let message = "/srv/x does not exist";
        assert_eq!(count("localhost", message, ""), 1);
        assert_eq!(count("web1", message, ""), 0);
        assert_eq!(
            count("web1", "Could not find or access '/srv/x' on the Ansible Controller", ""),
            1
        );
        assert_eq!(count("", "", "[ERROR]: the file /srv/long-\nname was not\nfound"), 1);
        assert_eq!(count("", "", "fine: /srv/x does not exist"), 0);
        let many = "/a /b /c /d /e does not exist";
        assert_eq!(count("localhost", many, ""), MAX_FILES);
    }
}
