//! Finds the files that a failed run named and that its sandbox denied.
//!
//! In its own root file system a playbook is told that a file does not exist, although it is on this machine. The
//! results and the output are text from outside, so they only decide which files are looked for: a file is named if it is
//! on this machine and outside of the grants.

use std::path::{Path, PathBuf};
use std::time::Duration;

use loopabull_launcher::{Files, Layer};
use loopabull_model::{Access, Attempt, DeniedFile, Grants, LayerState};

/// The maximum number of named files.
const MAX_FILES: usize = 3;
/// The maximum number of files that are looked for.
const MAX_PATHS: usize = 50;
/// The time for the search, which a file system over the network may delay.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The beginning of Ansible's own errors, in 2.14 to 2.21.
const ERROR: &str = "ERROR";
/// The words of the kernel's errors EACCES and EROFS.
const REFUSALS: [&str; 2] = ["Permission denied", "Read-only file system"];
/// The directories of which a run has its own, or that hold no files.
const OWN: [&str; 5] = ["/dev", "/proc", "/sys", "/tmp", "/var/tmp"];

/// Returns the files that the texts of a failed run name and that its sandbox denied. `files` are all files that it could
/// use.
pub(crate) async fn find(attempt: &Attempt, files: Files, grants: &Grants) -> Vec<DeniedFile> {
    let texts = texts(attempt);
    if !has_files_layer(attempt) || !texts.iter().any(|text| paths(text).next().is_some()) {
        return Vec::new();
    }
    let read_only = grants.dirs.iter().filter(|dir| dir.access == Access::ReadOnly);
    let read_only: Vec<_> = read_only.map(|dir| dir.host.clone()).collect();
    let search = tokio::task::spawn_blocking(move || denied(&texts, &files, &read_only));
    match tokio::time::timeout(TIMEOUT, search).await {
        Ok(Ok(found)) => found,
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

fn has_files_layer(attempt: &Attempt) -> bool {
    let mut layers = attempt.playbook.iter().flat_map(|report| &report.layers);
    layers.any(|layer| layer.layer == Layer::Files.name() && layer.state == LayerState::Active)
}

/// Returns the messages of the failed tasks or, if there are none, Ansible's own error at the end of its output.
fn texts(attempt: &Attempt) -> Vec<String> {
    let results = attempt.playbook.iter().flat_map(|report| &report.results);
    let failures = results.flat_map(|results| &results.failures);
    let messages: Vec<_> = failures.map(|failure| failure.message.as_str().to_owned()).collect();
    let printed = &attempt.output.text;
    match printed.find(ERROR).filter(|_| messages.is_empty()) {
        // Ansible wraps its errors, also after hyphens.
        Some(start) => vec![printed[start..].replace("-\n", "-")],
        None => messages,
    }
}

fn denied(texts: &[String], files: &Files, read_only: &[PathBuf]) -> Vec<DeniedFile> {
    let real = |paths: &mut dyn Iterator<Item = &Path>| -> Vec<PathBuf> {
        paths.filter_map(|path| path.canonicalize().ok()).collect()
    };
    let visible = real(&mut files.all().chain(OWN.iter().map(Path::new)));
    let read_only = real(&mut read_only.iter().map(PathBuf::as_path));
    let is_in = |path: &Path, trees: &[PathBuf]| trees.iter().any(|tree| path.starts_with(tree));
    let mut found = Vec::<DeniedFile>::new();
    let named = texts.iter().flat_map(|text| paths(text).map(move |path| (text, path)));
    for (text, path) in named.take(MAX_PATHS) {
        let Ok(path) = path.canonicalize() else { continue };
        let is_refused = REFUSALS.iter().any(|refusal| text.contains(refusal));
        let access = if !is_in(&path, &visible) {
            // Only the granted entries of this directory are visible, so the playbook finds the directory itself.
            if visible.iter().any(|tree| tree.starts_with(&path)) {
                continue;
            }
            Access::ReadOnly
        } else if is_refused && is_in(&path, &read_only) {
            Access::ReadWrite
        } else {
            continue;
        };
        let Ok(path) = path.into_os_string().into_string() else { continue };
        let file = DeniedFile { path, access };
        if !found.contains(&file) {
            found.push(file);
        }
        if found.len() == MAX_FILES {
            break;
        }
    }
    found
}

/// Returns the absolute paths in a text.
fn paths(text: &str) -> impl Iterator<Item = &Path> {
    let is_border = |c: char| c.is_whitespace() || "'\"`,;()[]{}<>|=".contains(c);
    text.split(is_border).filter_map(|word| {
        let word = word.trim_matches([':', '.', '…']);
        // As in `No such file or directory:/srv/x`, but not as in `https://example.com/`.
        let start = if word.starts_with('/') { 0 } else { word.find(":/")? + 1 };
        let path = &word[start..];
        (path.len() > 1 && !path.starts_with("//")).then(|| Path::new(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_in_errors() {
        let text = "Could not find or access '/srv/a b' (msg=/srv/c): [Errno 13] Permission denied:'/srv/d.txt'. \
                    https://example.com/e roles/f /srv/g. dest:/srv/h / //srv/i";
        let found: Vec<_> = paths(text).map(|path| path.display().to_string()).collect();
        assert_eq!(found, ["/srv/a", "/srv/c", "/srv/d.txt", "/srv/g", "/srv/h"]);
    }

    #[test]
    fn files_outside_of_the_grants_are_denied() {
        let outside = tempfile::tempdir_in("/var").unwrap();
        let at = |name: &str| outside.path().canonicalize().unwrap().join(name);
        for name in ["granted", "written", "other"] {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join("file"), "x").unwrap();
        }
        let files = Files { system: true, read: vec![at("granted")], write: vec![at("written")] };
        let find = |text: &str| {
            let text = text.replace("@", outside.path().to_str().unwrap());
            let found = denied(&[text], &files, &[at("granted")]).into_iter();
            found.map(|file| (PathBuf::from(file.path), file.access)).collect::<Vec<_>>()
        };
        let other = (at("other/file"), Access::ReadOnly);
        assert_eq!(find("no file '@/other/../other/file' '@/other/file'"), [other]);
        assert_eq!(find("no file @/none @/granted/file @/written/file @ /etc/hosts /tmp"), []);
        let read_only = (at("granted/file"), Access::ReadWrite);
        assert_eq!(find("Permission denied: '@/granted/file' '@/written/file'"), [read_only]);
    }
}
