//! The catalogue: workflow versions and plugins, known by name. It gives the journal crate's keyed records their
//! meaning; the plugin binaries lie beside it, named by their digest and checked against it when read.
//!
//! Publishing is serialised, so that a version number is given once.

mod binaries;
mod plugins;
mod records;
mod workflows;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;
use reipaz_core::{
    document::{KnownPlugin, Plugins, UnknownPlugin},
    ids::Digest,
    plan::PluginPin,
};
use reipaz_engine::{Engine, Grants};

pub(crate) use self::{
    binaries::{Binaries, shared_folder, shared_store},
    plugins::{Install, Plugin},
    records::OWNER,
    workflows::Version,
};

/// See the module.
pub(crate) struct Catalog {
    port: Arc<dyn reipaz_journal::Catalog>,
    binaries: Binaries,
    /// What the operator's configuration grants, by plugin name.
    configured: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    state: RwLock<State>,
    /// What of the records is known already: other hosts add to them.
    learnt: Mutex<HashMap<String, Bytes>>,
    /// Held while a version number or a plugin is being given out.
    publishing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    workflows: BTreeMap<String, BTreeMap<u32, Arc<Version>>>,
    plugins: BTreeMap<String, BTreeMap<semver::Version, Arc<Plugin>>>,
    by_digest: HashMap<Digest, Arc<Plugin>>,
}

/// Why the catalogue did not do it.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The journal crate's keyed records fail.
    #[error(transparent)]
    Journal(#[from] reipaz_journal::JournalError),
    /// A record is not one of ours.
    #[error("the catalogue's record {key:?} cannot be read: {reason}")]
    Record {
        /// Its key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A plugin's binary cannot be read or written.
    #[error("{0}")]
    Binary(String),
}

impl Catalog {
    /// Reads all records. One that is damaged is an error here: a version number might be given a second time.
    pub(crate) fn open(
        port: Arc<dyn reipaz_journal::Catalog>,
        binaries: Binaries,
        configured: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    ) -> Result<Self, CatalogError> {
        binaries.create_folder().map_err(|error| CatalogError::Binary(error.to_string()))?;
        let catalog = Self {
            port,
            binaries,
            configured,
            state: RwLock::default(),
            learnt: Mutex::default(),
            publishing: tokio::sync::Mutex::default(),
        };
        catalog.learn_all()?;
        Ok(catalog)
    }

    /// Takes in what other hosts have written since. A record that cannot be read is left aside, and told of once; it
    /// does not keep the others away. Comes back with the first of those.
    fn learn_all(&self) -> Result<(), CatalogError> {
        let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        let mut first = Ok(());
        for (key, bytes) in self.port.entries() {
            if learnt.get(&key) == Some(&bytes) {
                continue;
            }
            if let Err(error) = self.learn(&key, &bytes) {
                tracing::error!(%error, "a record of the catalogue is left aside");
                first = first.and(Err(error));
            }
            learnt.insert(key, bytes);
        }
        first
    }

    /// Follows what other hosts publish and install, for as long as it is polled.
    pub(crate) async fn follow(&self, engine: &Engine) {
        let mut changes = self.changes();
        while changes.changed().await.is_ok() {
            drop(self.learn_all());
            self.load_all(engine).await;
        }
    }

    /// Takes in whatever was published or installed before this call, on whichever host.
    pub(crate) async fn sync(&self) -> Result<(), CatalogError> {
        self.port.sync().await?;
        drop(self.learn_all());
        Ok(())
    }

    /// Told at every change.
    pub(crate) fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.port.changes()
    }

    fn learn(&self, key: &str, bytes: &[u8]) -> Result<(), CatalogError> {
        let refuse = |reason: String| CatalogError::Record { key: key.to_owned(), reason };
        if key.starts_with(records::WORKFLOW) {
            let version = Version::from_record(bytes).map_err(refuse)?;
            self.add_version(Arc::new(version));
        } else if key.starts_with(records::PLUGIN) {
            let plugin = Plugin::from_record(bytes, &self.configured).map_err(refuse)?;
            self.add_plugin(Arc::new(plugin));
        } else if key.starts_with(records::OWNER) {
            // The peers' affair.
        } else {
            tracing::warn!(key, "the catalogue has a record of a newer version of Reipaz; it is left aside");
        }
        Ok(())
    }

    /// What a plugin may do for a step: the operator's grants, narrowed by the document's.
    pub(crate) fn grants(
        &self,
        digest: &Digest,
        narrowed: Option<&BTreeMap<String, Vec<String>>>,
    ) -> Arc<Grants> {
        let granted = match self.read().by_digest.get(digest) {
            Some(plugin) => Arc::clone(&plugin.effective),
            None => Arc::default(),
        };
        match narrowed {
            None => granted,
            // A document's grants were checked when it was published; what does not parse any more grants nothing.
            Some(narrowed) => {
                Arc::new(Grants::parse(narrowed).map(|step| granted.narrow(&step)).unwrap_or_default())
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plugins for Catalog {
    fn resolve(&self, uses: &str) -> Result<KnownPlugin, UnknownPlugin> {
        let (name, wanted) = uses.split_once('@').unwrap_or((uses, ""));
        let state = self.read();
        let Some(versions) = state.plugins.get(name) else {
            return Err(UnknownPlugin { known: state.plugins.keys().cloned().collect() });
        };
        versions
            .iter()
            .rev()
            .find(|(version, _)| fits(version, wanted))
            .map(|(version, plugin)| KnownPlugin {
                pin: PluginPin {
                    name: name.to_owned(),
                    version: version.to_string(),
                    digest: plugin.digest,
                    retry: plugin.retry.clone(),
                },
                input_schema: plugin.input_schema.clone(),
            })
            .ok_or_else(|| UnknownPlugin {
                known: versions.keys().rev().map(|version| format!("{name}@{version}")).collect(),
            })
    }
}

/// `1` fits 1.x.y, `1.2` fits 1.2.x, `1.2.3` fits itself, nothing fits any.
fn fits(version: &semver::Version, wanted: &str) -> bool {
    if wanted.is_empty() {
        return version.pre.is_empty();
    }
    if let Ok(exact) = semver::Version::parse(wanted) {
        return *version == exact;
    }
    let mut parts = wanted.split('.').map(str::parse::<u64>);
    let numbers = [version.major, version.minor];
    version.pre.is_empty()
        && wanted.split('.').count() <= numbers.len()
        && numbers.iter().all(|number| parts.next().is_none_or(|part| part.as_ref() == Ok(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_major_version_fits_all_of_its_releases() {
        let version = |text: &str| semver::Version::parse(text).expect("a version");
        assert!(fits(&version("1.2.3"), "1"));
        assert!(fits(&version("1.2.3"), "1.2"));
        assert!(fits(&version("1.2.3"), "1.2.3"));
        assert!(fits(&version("1.2.3"), ""));
        assert!(!fits(&version("2.0.0"), "1"));
        assert!(!fits(&version("1.2.3"), "1.3"));
        assert!(!fits(&version("1.2.3"), "x"));
        assert!(!fits(&version("1.2.3-rc.1"), "1"), "a pre-release is taken only by its full name");
    }
}
