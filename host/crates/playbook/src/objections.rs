//! The check of a manifest for settings that are impossible for a playbook.

use loopabull_launcher::Layer;
use loopabull_model::Manifest;

use crate::environment::is_ours;

/// A setting of a manifest that is impossible for a playbook.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Objection {
    #[error("`[ansible]` names the secret `{name}`, which is missing under `[grants.secrets]`")]
    SecretNotGranted { name: String },
    #[error("`{name}` is not the name of a confinement layer")]
    NoLayer { name: String },
    #[error("the environment variable `{name}` has an invalid name or value")]
    BadVariable { name: String },
    #[error(
        "a manifest must not set the environment variable `{name}`, because the daemon sets it"
    )]
    OurVariable { name: String },
    #[error("the name of the secret `{name}` cannot be used as a file name")]
    BadSecretName { name: String },
}

/// Returns all settings of a manifest that are impossible for a playbook.
pub fn objections(manifest: &Manifest) -> Vec<Objection> {
    let is_granted = |name: &str| manifest.grants.secrets.contains_key(name);
    let missing = manifest.ansible.missing_secrets(is_granted).into_iter();
    let missing = missing.map(|name| Objection::SecretNotGranted { name: name.to_owned() });
    let layers = manifest.ansible.require.iter().filter(|name| name.parse::<Layer>().is_err());
    let layers = layers.map(|name| Objection::NoLayer { name: name.clone() });
    let variables = manifest.grants.env.iter().filter_map(|(name, value)| {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(is_name) || value.contains('\0') {
            return Some(Objection::BadVariable { name: name.escape_debug().to_string() });
        }
        is_ours(name).then(|| Objection::OurVariable { name: name.clone() })
    });
    let files = manifest.grants.secrets.keys();
    let files = files.filter(|name| name.contains('/') || name.starts_with('.') || name.is_empty());
    let files = files.map(|name| Objection::BadSecretName { name: name.clone() });
    missing.chain(layers).chain(variables).chain(files).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_impossible_setting_is_named() {
        let text = "
            [ansible]
            vault_password = 'v'
            require = ['walls']
            [grants]
            env = { 'A=B' = 'c', HOME = '/evil' }
            secrets = { '../x' = { env = 'X' } }";
        let objections = objections(&Manifest::parse(text).unwrap());
        let expected = [
            "`[ansible]` names the secret `v`, which is missing under `[grants.secrets]`",
            "`walls` is not the name of a confinement layer",
            "the environment variable `A=B` has an invalid name or value",
            "a manifest must not set the environment variable `HOME`, because the daemon sets it",
            "the name of the secret `../x` cannot be used as a file name",
        ];
        assert_eq!(objections.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }
}
