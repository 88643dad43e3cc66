//! Plugins: install, find, load. A name and version stand for one content for ever; grants may change.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use reipaz_core::{
    failure::{ErrorClass, Failure},
    ids::Digest,
    time::Timestamp,
};
use reipaz_engine::{Engine, Grants, InstallError, NotAStep};

use super::{Catalog, binaries::BinaryError, records::PluginRecord, workflows::journal_error};
use crate::{
    clock,
    facade::{FacadeError, InstalledPlugin, PluginView, WantedGrant},
};

/// How many near names an error offers.
const NEAR: usize = 5;

/// One installed version.
pub(crate) struct Plugin {
    record: PluginRecord,
    pub(super) number: semver::Version,
    pub(super) digest: Digest,
    pub(super) retry: Option<serde_json::Value>,
    pub(super) input_schema: Option<serde_json::Value>,
    /// The installation's grants and the configuration's.
    pub(super) effective: Arc<Grants>,
    granted: BTreeMap<String, Vec<String>>,
}

impl Plugin {
    pub(super) fn from_record(
        bytes: &[u8],
        configured: &BTreeMap<String, BTreeMap<String, Vec<String>>>,
    ) -> Result<Self, String> {
        let record: PluginRecord = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let number = semver::Version::parse(&record.version).map_err(|error| error.to_string())?;
        // The configuration's word about a plugin replaces what was given at installation: it is what the operator
        // reads when asking what a plugin may do.
        let granted = configured.get(&record.name).unwrap_or(&record.grants).clone();
        let effective =
            Grants::parse(&granted).map_err(|error| format!("plugin {}: {error}", record.name))?;
        Ok(Self {
            number,
            digest: record.digest,
            retry: record.retry.clone(),
            input_schema: record.input_schema.clone(),
            effective: Arc::new(effective),
            granted,
            record,
        })
    }

    /// A plugin that asks for HTTP and has no grant at all would fail at every run: better now. Which of its hosts it gets is
    /// the operator's choice.
    fn has_what_it_asks_for(&self) -> Result<(), FacadeError> {
        let Some(want) = self.record.wants.iter().find(|want| want.kind == "http") else { return Ok(()) };
        if !self.effective.http.is_empty() {
            return Ok(());
        }
        let (name, value) = (&self.record.name, &want.value);
        Err(FacadeError::PluginRefused {
            code: "missing_grant".to_owned(),
            message: format!("{name} asks for http={value} ({}) and has no grant", want.why),
            hint: Some(format!(
                "install it with --grant 'http={value}' or a narrower one (`grant=` in the API), name one under \
                 [plugins.{name:?}.grants] in the configuration, or say that it gets none with --no-grants \
                 (`grants=none`)"
            )),
        })
    }

    /// What it is called.
    pub(crate) fn name(&self) -> &str {
        &self.record.name
    }

    /// In full.
    pub(crate) fn version(&self) -> &str {
        &self.record.version
    }

    /// One sentence.
    pub(crate) fn summary(&self) -> &str {
        &self.record.summary
    }

    /// Of the component.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// When.
    pub(crate) fn installed_at(&self) -> Timestamp {
        self.record.installed_at
    }
}

/// What is installed, from whom.
pub(crate) struct Install {
    pub(crate) wasm: Bytes,
    pub(crate) grants: Option<BTreeMap<String, Vec<String>>>,
    /// It comes with the host.
    pub(crate) standard: bool,
    /// It may take the place of the same version with other content.
    pub(crate) replace: bool,
}

impl Catalog {
    /// Checks, compiles and stores a component.
    pub(crate) async fn install(
        &self,
        engine: &Engine,
        install: Install,
    ) -> Result<InstalledPlugin, FacadeError> {
        if let Some(grants) = &install.grants {
            Grants::parse(grants).map_err(|error| FacadeError::Grant {
                grant: serde_json::to_string(grants).unwrap_or_default(),
                message: error.to_string(),
            })?;
        }
        let installed = engine.install(install.wasm.clone()).await.map_err(refused)?;
        let _one_at_a_time = self.publishing.lock().await;
        let manifest = installed.manifest;
        let digest = Digest(installed.digest);
        let known = self.newest_or(&manifest.name, Some(&manifest.version));
        let may_replace = |known: &Plugin| install.replace || known.record.standard;
        if let Some(known) = known.as_ref().filter(|known| known.digest != digest && !may_replace(known)) {
            return Err(FacadeError::PluginExists {
                name: known.record.name.clone(),
                version: known.record.version.clone(),
            });
        }
        let grants_were_given = install.grants.is_some();
        let is_new = known.is_none() && !install.replace && !install.standard;
        let created = known.as_ref().is_none_or(|known| known.digest != digest);
        let before = known.or_else(|| self.newest_or(&manifest.name, None));
        let record = PluginRecord {
            name: manifest.name,
            version: manifest.version,
            digest,
            summary: manifest.summary,
            input_schema: Some(manifest.input_schema),
            output_schema: Some(manifest.output_schema),
            retry: manifest.extra.get("retry").cloned(),
            wants: manifest
                .grants
                .into_iter()
                .map(|want| WantedGrant { kind: want.kind, value: want.value, why: want.why })
                .collect(),
            grants: install
                .grants
                .or_else(|| before.map(|before| before.record.grants.clone()))
                .unwrap_or_default(),
            standard: install.standard,
            size_bytes: install.wasm.len() as u64,
            installed_at: clock::wall(),
        };
        let bytes = serde_json::to_vec(&record).map_err(|error| FacadeError::Internal(error.to_string()))?;
        let mut plugin = Plugin::from_record(&bytes, &self.configured).map_err(FacadeError::Internal)?;
        // Whoever grants nothing in so many words means it.
        if !install.standard && !grants_were_given {
            plugin.has_what_it_asks_for()?;
        }
        if !install.standard && !self.binaries.reach_everybody() {
            return Err(FacadeError::PluginRefused {
                code: "no_plugin_store".to_owned(),
                message: "hosts that share Kafka would not find the component: they share no plugin store"
                    .to_owned(),
                hint: Some("set `plugin_store` to a directory or bucket that all hosts reach".to_owned()),
            });
        }
        self.binaries.write(&digest, install.wasm).await.map_err(not_kept)?;
        let (key, bytes) = (record.key(), Bytes::from(bytes));
        let first = match is_new {
            true => self.port.insert(&key, bytes.clone()).await,
            false => self.port.put(&key, bytes.clone()).await.map(|()| None),
        };
        // Another host installed the same version at the same time: this goes on as if it had begun a moment later.
        if let Some(first) = first.map_err(journal_error)? {
            let first = Plugin::from_record(&first, &self.configured).map_err(FacadeError::Internal)?;
            if first.digest != digest {
                self.add_plugin(Arc::new(first));
                return Err(FacadeError::PluginExists { name: record.name, version: record.version });
            }
            if grants_were_given {
                self.port.put(&key, bytes).await.map_err(journal_error)?;
            } else {
                plugin = first;
            }
        }
        let plugin = Arc::new(plugin);
        self.add_plugin(Arc::clone(&plugin));
        Ok(InstalledPlugin { plugin: self.plugin_view(engine, &plugin), created })
    }

    /// Every version, by name, newest first.
    pub(crate) fn plugins(&self, engine: &Engine) -> Vec<PluginView> {
        let all = self.all_plugins();
        all.iter().map(|plugin| self.plugin_view(engine, plugin)).collect()
    }

    /// Every version, by name, newest first.
    pub(crate) fn all_plugins(&self) -> Vec<Arc<Plugin>> {
        self.read().plugins.values().flat_map(|versions| versions.values().rev().cloned()).collect()
    }

    /// One version, or the newest.
    pub(crate) fn plugin(
        &self,
        engine: &Engine,
        name: &str,
        version: Option<&str>,
    ) -> Result<PluginView, FacadeError> {
        if let Some(plugin) = self.newest_or(name, version) {
            return Ok(self.plugin_view(engine, &plugin));
        }
        let state = self.read();
        let near = match state.plugins.get(name) {
            Some(versions) => versions.keys().rev().map(|version| format!("{name}@{version}")).collect(),
            None => near(name, state.plugins.keys()),
        };
        Err(FacadeError::UnknownPlugin { name: name.to_owned(), near })
    }

    /// Makes sure that the engine can run it: from its cache of compiled code, or compiled anew.
    pub(crate) async fn ensure_loaded(&self, engine: &Engine, digest: &Digest) -> Result<(), Failure> {
        if engine.is_loaded(&digest.0) {
            return Ok(());
        }
        let unavailable = |why: String| Failure::new(ErrorClass::Transient, "plugin_not_loaded", why);
        self.binaries.fetch(digest).await.map_err(|error| unavailable(error.to_string()))?;
        let path = self.binaries.path(digest);
        let loaded = engine.load(digest.0, move || std::fs::read(&path).map(Bytes::from)).await;
        loaded.map_err(|error| unavailable(error.to_string()))
    }

    /// Has the engine load what is installed, so that the first run of a plugin finds it ready. What does not load is
    /// tried again when a run needs it.
    pub(crate) async fn load_all(&self, engine: &Engine) {
        for plugin in self.all_plugins() {
            if let Err(failure) = self.ensure_loaded(engine, &plugin.digest).await {
                tracing::error!(
                    plugin = plugin.name(),
                    version = plugin.version(),
                    reason = %failure.message,
                    "plugin not loaded"
                );
            }
        }
    }

    /// Whether this very component is installed as a standard plugin.
    pub(crate) fn has_standard(&self, wasm: &[u8]) -> bool {
        let digest = Digest::of(wasm);
        self.read().by_digest.get(&digest).is_some_and(|plugin| plugin.record.standard)
            && self.binaries.path(&digest).exists()
    }

    pub(super) fn add_plugin(&self, plugin: Arc<Plugin>) {
        let mut state = self.write();
        state.by_digest.insert(plugin.digest, Arc::clone(&plugin));
        state.plugins.entry(plugin.record.name.clone()).or_default().insert(plugin.number.clone(), plugin);
    }

    fn newest_or(&self, name: &str, version: Option<&str>) -> Option<Arc<Plugin>> {
        let state = self.read();
        let versions = state.plugins.get(name)?;
        match version {
            None => versions.last_key_value().map(|(_, plugin)| Arc::clone(plugin)),
            Some(version) => versions.get(&semver::Version::parse(version).ok()?).cloned(),
        }
    }

    fn plugin_view(&self, engine: &Engine, plugin: &Plugin) -> PluginView {
        let record = &plugin.record;
        let versions = self
            .read()
            .plugins
            .get(&record.name)
            .map(|versions| versions.keys().rev().map(ToString::to_string).collect());
        PluginView {
            name: record.name.clone(),
            version: record.version.clone(),
            versions: versions.unwrap_or_default(),
            digest: record.digest,
            summary: record.summary.clone(),
            input_schema: record.input_schema.clone(),
            output_schema: record.output_schema.clone(),
            wants: record.wants.clone(),
            grants: plugin.granted.clone(),
            silent: engine.is_silent(&record.digest.0, &plugin.effective),
            standard: record.standard,
            size_bytes: record.size_bytes,
            installed_at: record.installed_at,
        }
    }
}

/// Names that resemble `name`, best first.
pub(super) fn near<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut scored: Vec<(f64, &String)> = known
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(score, _)| *score > 0.7)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(NEAR).map(|(_, known)| known.clone()).collect()
}

fn refused(error: InstallError) -> FacadeError {
    let code = match &error {
        InstallError::NotAStep(NotAStep::TooLarge { .. }) => "too_large",
        InstallError::NotAStep(NotAStep::NotWasm(_)) => "not_wasm",
        InstallError::NotAStep(NotAStep::CoreModule) => "core_module",
        InstallError::NotAStep(NotAStep::NoHandler(_)) => "missing_export",
        InstallError::NotAStep(NotAStep::OtherVersion { .. }) => "other_version",
        InstallError::NotAStep(NotAStep::UnknownImports(_)) => "unknown_import",
        InstallError::Compile(_) => "does_not_compile",
        InstallError::Misfit(_) => "does_not_link",
        InstallError::Describe(_) => "describe_failed",
        InstallError::Manifest(_) => "bad_manifest",
        InstallError::Cache(source) if source.kind() == std::io::ErrorKind::StorageFull => {
            return FacadeError::StorageFull;
        }
        InstallError::Cache(_) => return FacadeError::Internal(error.to_string()),
        InstallError::Stopping => return FacadeError::stopping(),
    };
    FacadeError::PluginRefused { code: code.to_owned(), message: error.to_string(), hint: None }
}

fn not_kept(error: BinaryError) -> FacadeError {
    match &error {
        BinaryError::Folder { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            FacadeError::StorageFull
        }
        _ => FacadeError::Internal(error.to_string()),
    }
}
