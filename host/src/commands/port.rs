//! Asks the daemon that uses the state directory, at its operator's port.

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::commands::failure::Failure;
use crate::config::Config;
use crate::daemon::state_dir::{self, DaemonFile};
use crate::web::token;

/// Timeout for the daemon's answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The answer of the daemon.
pub(super) enum Answer<T> {
    Running(T),
    NotRunning,
    /// A daemon holds the lock of the directory and does not answer, for the given reason.
    Silent {
        reason: String,
    },
}

/// Requests a path, with parameters.
pub(super) fn ask<T: DeserializeOwned>(
    config: &Config,
    path: &str,
    parameters: &[(&str, &str)],
) -> Result<Answer<T>, Failure> {
    let state = config.state.as_path();
    let daemon = DaemonFile::read(state).map_err(|error| {
        Failure::with_hint(
            error,
            "run the command as the user of the daemon, or name its directory with `--state`",
        )
    })?;
    if !state_dir::is_locked(state) {
        return Ok(Answer::NotRunning);
    }
    let Some(daemon) = daemon else {
        return Ok(Answer::Silent { reason: "has not started its port yet".to_owned() });
    };
    // A proxy of the environment must not get the token.
    let agent = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).proxy(None).build();
    let agent = ureq::Agent::from(agent);
    let mut request = agent.get(format!("http://{}{path}", daemon.listen));
    for (name, value) in parameters {
        request = request.query(name, value);
    }
    if let Some(path) = &config.token_file {
        request = request.header("Authorization", format!("Bearer {}", token::read(path)?));
    }
    let text = request.call().and_then(|mut answer| answer.body_mut().read_to_string());
    let problem = match text.map(|text| parse::<T>(&text)) {
        Ok(Ok((pid, answer))) if pid == daemon.pid => return Ok(Answer::Running(answer)),
        Ok(Ok(_)) => "is the port of another daemon".to_owned(),
        Ok(Err(_)) => "answers in another form; the daemon may have another version".to_owned(),
        Err(ureq::Error::StatusCode(401)) => {
            "refuses the token: name the daemon's configuration with `--config`".to_owned()
        }
        Err(ureq::Error::StatusCode(404)) => {
            format!("has no path `{path}`; the daemon may have another version")
        }
        Err(error) => format!("does not answer: {error}"),
    };
    Ok(Answer::Silent { reason: format!("{} {problem}", daemon.listen) })
}

/// Parses an answer, which has the process id of the daemon.
fn parse<T: DeserializeOwned>(text: &str) -> serde_json::Result<(u32, T)> {
    #[derive(serde::Deserialize)]
    struct Sender {
        pid: u32,
    }
    Ok((serde_json::from_str::<Sender>(text)?.pid, serde_json::from_str(text)?))
}
