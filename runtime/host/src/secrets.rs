//! Secrets: the operator names them and the hosts that they may go to; a guest only ever holds a placeholder. The
//! engine's connector puts the value into an outgoing header, if the run's workflow declares the secret and the
//! request goes to one of its hosts.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use reipaz_engine::Secrets;

use crate::config::{ConfigError, SecretConfig};

const PREFIX: &str = "__reipaz_secret_";
const SUFFIX: &str = "__";

/// One secret's value and where it may go.
struct Secret {
    value: String,
    hosts: Vec<String>,
}

/// All secrets of the host.
pub(crate) struct SecretStore {
    by_name: Arc<BTreeMap<String, Secret>>,
}

impl SecretStore {
    /// Reads each from where its configuration says.
    pub(crate) fn load(config: &BTreeMap<String, SecretConfig>) -> Result<Self, ConfigError> {
        let mut by_name = BTreeMap::new();
        for (name, secret) in config {
            let value = match (&secret.env, &secret.file) {
                (Some(variable), _) => std::env::var(variable).map_err(|_| {
                    ConfigError::Invalid(format!(
                        "secrets.{name}: the environment variable {variable} is not set"
                    ))
                })?,
                (None, Some(file)) => std::fs::read_to_string(file)
                    .map_err(|error| {
                        ConfigError::Invalid(format!(
                            "secrets.{name}: cannot read {}: {error}",
                            file.display()
                        ))
                    })?
                    .trim_end_matches(['\n', '\r'])
                    .to_owned(),
                (None, None) => {
                    return Err(ConfigError::Invalid(format!("secrets.{name} needs `env` or `file`")));
                }
            };
            by_name.insert(name.clone(), Secret { value, hosts: secret.hosts.clone() });
        }
        Ok(Self { by_name: Arc::new(by_name) })
    }

    /// What stands for the secret inside a guest.
    pub(crate) fn placeholder(name: &str) -> String {
        format!("{PREFIX}{name}{SUFFIX}")
    }

    /// A header's value out of the configuration, with each `${ $secrets.NAME }` filled in, for requests to `host`.
    pub(crate) fn fill(&self, value: &str, host: &str) -> Result<String, String> {
        let mut filled = String::new();
        for piece in pieces(value)? {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Secret(name) => {
                    let secret =
                        self.by_name.get(name).ok_or_else(|| format!("there is no secret {name}"))?;
                    if !secret.hosts.iter().any(|pattern| host_matches(pattern, host)) {
                        return Err(format!("the secret {name} may not go to {host}"));
                    }
                    filled.push_str(&secret.value);
                }
            }
        }
        Ok(filled)
    }

    /// Those that one workflow declares.
    pub(crate) fn for_names(&self, names: &[Arc<str>]) -> Arc<dyn Secrets> {
        Arc::new(Declared {
            by_name: Arc::clone(&self.by_name),
            names: names.iter().map(|name| name.to_string()).collect(),
        })
    }
}

struct Declared {
    by_name: Arc<BTreeMap<String, Secret>>,
    names: HashSet<String>,
}

impl Secrets for Declared {
    fn substitute(&self, header_value: &str, host: &str) -> Option<String> {
        if self.names.is_empty() || !header_value.contains(PREFIX) {
            return None;
        }
        let mut value = header_value.to_owned();
        for name in &self.names {
            let Some(secret) = self.by_name.get(name) else { continue };
            if secret.hosts.iter().any(|pattern| host_matches(pattern, host)) {
                value = value.replace(&SecretStore::placeholder(name), &secret.value);
            }
        }
        (value != header_value).then_some(value)
    }
}

/// A part of a value of the configuration.
enum Piece<'v> {
    Text(&'v str),
    Secret(&'v str),
}

/// Values name secrets as documents do: `Bearer ${ $secrets.NAME }`.
fn pieces(value: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut parts = value.split("${");
    let mut pieces = vec![Piece::Text(parts.next().unwrap_or_default())];
    for part in parts {
        let named = part.split_once('}').and_then(|(inside, rest)| {
            Some((inside.trim().strip_prefix("$secrets.").filter(|name| !name.is_empty())?, rest))
        });
        let Some((name, rest)) = named else {
            return Err("only ${ $secrets.NAME } can stand in it".to_owned());
        };
        pieces.extend([Piece::Secret(name), Piece::Text(rest)]);
    }
    Ok(pieces)
}

/// The secrets that a value of the configuration names.
pub(crate) fn names_in(value: &str) -> Result<Vec<&str>, String> {
    let name = |piece| match piece {
        Piece::Secret(name) => Some(name),
        Piece::Text(_) => None,
    };
    Ok(pieces(value)?.into_iter().filter_map(name).collect())
}

/// `api.example.com` itself, or any host below it for `*.example.com`. Case does not count.
pub(crate) fn host_matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(domain) => {
            let cut = host.len().checked_sub(domain.len() + 1);
            cut.and_then(|cut| host.get(cut..))
                .is_some_and(|end| end.starts_with('.') && end[1..].eq_ignore_ascii_case(domain))
        }
        None => pattern.eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> SecretStore {
        let secret = Secret { value: "s3cret".to_owned(), hosts: vec!["*.shop.example".to_owned()] };
        SecretStore { by_name: Arc::new(BTreeMap::from([("token".to_owned(), secret)])) }
    }

    #[test]
    fn a_declared_secret_goes_to_its_hosts_only() {
        let declared = store().for_names(&["token".into()]);
        let header = format!("Bearer {}", SecretStore::placeholder("token"));
        assert_eq!(declared.substitute(&header, "api.shop.example").as_deref(), Some("Bearer s3cret"));
        assert_eq!(declared.substitute(&header, "evil.example"), None);
        assert_eq!(declared.substitute(&header, "evilshop.example"), None);
    }

    #[test]
    fn an_undeclared_secret_goes_nowhere() {
        let declared = store().for_names(&[]);
        assert_eq!(declared.substitute(&SecretStore::placeholder("token"), "api.shop.example"), None);
    }

    #[test]
    fn a_value_of_the_configuration_is_filled_in_once() {
        let store = store();
        let fill = |value| store.fill(value, "api.shop.example");
        assert_eq!(fill("Bearer ${ $secrets.token }").as_deref(), Ok("Bearer s3cret"));
        assert_eq!(fill("${$secrets.token}:${ $secrets.token }!").as_deref(), Ok("s3cret:s3cret!"));
        assert_eq!(fill("plain").as_deref(), Ok("plain"));
        for wrong in ["${ $input.a }", "${ $secrets.token", "${ $secrets.other }", "${ $secrets. }"] {
            fill(wrong).expect_err(wrong);
        }
        store.fill("${ $secrets.token }", "evil.example").expect_err("not one of its hosts");
    }
}
