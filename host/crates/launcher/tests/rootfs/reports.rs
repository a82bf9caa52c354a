//! Tests of the launcher's report, and of programs that the launcher refuses to run.

use std::fs;
use std::process::Command;

use loopabull_launcher::{Layer, LayerState, Report, exit};

use crate::fixture::{Fixture, LAUNCHER, VARIANTS, state};

#[test]
fn every_layer_is_reported_once() {
    for without in VARIANTS {
        // A passed-on file descriptor must not replace the control socket, even if both have the number 3.
        let mut fixture = Fixture::new("exit 3", without);
        fixture.confinement.descriptors = vec![3];
        let (reports, _) = fixture.run(&[fs::File::open("/dev/null").unwrap().into()]);
        for layer in Layer::ALL {
            let lines = reports.iter().filter(
                |report| matches!(report, Report::Layer { layer: other, .. } if *other == layer),
            );
            assert_eq!(lines.count(), 1, "{layer} in {reports:?}");
        }
        let expected = if without.is_empty() { LayerState::Active } else { LayerState::Off };
        assert_eq!(state(&reports, Layer::Namespaces), Some(expected));
        assert_eq!(state(&reports, Layer::Files), Some(LayerState::Active));
        assert!(reports.contains(&Report::Exited { status: 3 }));
    }
}

#[test]
fn a_wrong_number_of_descriptors_is_refused() {
    let mut fixture = Fixture::new("exit 0", &[]);
    fixture.confinement.descriptors = vec![3];
    let (reports, _) = fixture.run(&[]);
    let reason = "the plan names 1 file descriptors, but 0 were received".to_owned();
    assert_eq!(reports, [Report::Failed { code: exit::USAGE, reason }]);
}

#[test]
fn a_program_is_not_run_without_a_required_layer() {
    // No namespaces can be created inside a sandbox, so the inner launcher lacks this layer.
    let mut inner = Fixture::new("echo it ran", &[]);
    inner.confinement.required.insert(Layer::Namespaces);
    let mut outer = Fixture::new("", &[]);
    // A granted path must not contain symbolic links, but cargo's target directory may be a link.
    let launcher = fs::canonicalize(LAUNCHER).unwrap();
    outer.confinement.program.clone_from(&launcher);
    outer.confinement.arguments = inner.confinement.to_args();
    outer.confinement.files.read.push(launcher);
    outer.confinement.files.write.push(inner.folder.path().canonicalize().unwrap());
    let (reports, printed) = outer.run(&[]);
    assert_eq!(printed, "");
    let status = i32::from(exit::LAYER_FAILED);
    assert!(reports.contains(&Report::Exited { status }), "{reports:?}");
    inner.confinement.required.clear();
    inner.confinement.without = [Layer::Namespaces, Layer::Cgroup].into();
    outer.confinement.arguments = inner.confinement.to_args();
    assert_eq!(outer.run(&[]).1, "it ran\n");
}

#[test]
fn the_option_report_prints_the_report_to_standard_error() {
    let fixture = Fixture::new("exit 0", &[]);
    let mut command = Command::new(LAUNCHER);
    let output = command.arg("--report").args(fixture.confinement.to_args()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("loopabull-launch: layer files active Landlock ABI "), "{stderr}");
    assert!(stderr.ends_with("loopabull-launch: killed 0\nloopabull-launch: exited 0\n"));
    assert_eq!(fixture.command().output().unwrap().stderr, b"");
}

#[test]
fn the_option_print_plan_prints_the_plan_and_runs_nothing() {
    let mut fixture = Fixture::new("echo it ran", &[Layer::Scopes]);
    fixture.confinement.required.insert(Layer::Tcp);
    let output = Command::new(LAUNCHER)
        .arg("--print-plan")
        .args(fixture.confinement.to_args())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for line in ["echo it ran", "files           required", "tcp             required"] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(text.contains("scopes          left out\n"));
    assert!(text.contains("sockets         if available\n"));
}
