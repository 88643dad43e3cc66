//! From a binary to a plugin that can run: inspect, compile or find compiled, link, ask it what it is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use crate::attempt::Failure;
use crate::bindings::step::StepPre;
use crate::bindings::step::exports::reipaz::step::handler;
use crate::compiler::{self, CompileError};
use crate::driver;
use crate::engine::{Engine, Inner, Plugin, lost};
use crate::guest::notebook::cut;
use crate::inspect::{self, NotAStep};
use crate::limits;
use crate::manifest::{GrantRequest, Manifest};

/// A plugin that is ready.
#[derive(Clone, Debug)]
pub struct Installed {
    /// SHA-256 of the binary.
    pub digest: [u8; 32],
    /// What it says about itself.
    pub manifest: Manifest,
    /// What it imports.
    pub imports: Vec<String>,
    /// Of the binary.
    pub size_bytes: usize,
}

/// Why a binary is not installed. All but `Compile` with a failed child, `Cache` and `Engine` are the binary's own fault.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// It is no step for this host.
    #[error(transparent)]
    NotAStep(#[from] NotAStep),
    /// It does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// Its imports or exports have other types than ours, or it needs more than the pool holds.
    #[error("the component does not fit this host: {0}")]
    Misfit(String),
    /// It cannot say what it is.
    #[error("the component's describe failed: {message} ({code})", message = .0.message, code = .0.code)]
    Describe(Failure),
    /// What it says is not sound.
    #[error("the component's manifest is not sound: {}", .0.join("; "))]
    Manifest(Vec<String>),
    /// The cache cannot be written.
    #[error("compiled code cannot be stored: {0}")]
    Cache(std::io::Error),
    /// The engine is being stopped.
    #[error("the engine is stopping")]
    Stopping,
}

/// Why a plugin that was installed once is not ready.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its binary cannot be read.
    #[error("the plugin's binary cannot be read: {0}")]
    Source(std::io::Error),
    /// The binary is another one.
    #[error("the plugin's binary is damaged: its SHA-256 is {found}")]
    OtherBinary {
        /// What was found.
        found: String,
    },
    /// As at its installation.
    #[error(transparent)]
    Install(#[from] InstallError),
}

impl Engine {
    /// Checks a binary, compiles it, asks it what it is, and makes it ready. Doing it twice changes nothing.
    pub async fn install(&self, wasm: Bytes) -> Result<Installed, InstallError> {
        let inner = self.inner.clone();
        let work = async move { inner.install(wasm).await };
        self.inner.threads.run_fast(work).await.unwrap_or(Err(InstallError::Stopping))
    }

    /// Makes a plugin ready that was installed before: from the cache, or from its binary, which is asked for only then.
    pub async fn load(
        &self,
        digest: [u8; 32],
        wasm: impl FnOnce() -> std::io::Result<Bytes> + Send + 'static,
    ) -> Result<(), LoadError> {
        if self.inner.plugin(&digest).is_some() {
            return Ok(());
        }
        let inner = self.inner.clone();
        let work = async move { inner.load(digest, wasm).await };
        self.inner.threads.run_fast(work).await.unwrap_or(Err(InstallError::Stopping.into()))
    }
}

impl Inner {
    async fn install(self: Arc<Self>, wasm: Bytes) -> Result<Installed, InstallError> {
        let imports = inspect::step(&wasm)?;
        let digest: [u8; 32] = Sha256::digest(&wasm).into();
        let component = self.component(&digest, &wasm).await?;
        let plugin = Arc::new(self.plugin_of(&component, &imports)?);
        let manifest = self.describe(&plugin).await?;
        self.insert(digest, plugin);
        Ok(Installed { digest, manifest, imports, size_bytes: wasm.len() })
    }

    async fn load(
        self: Arc<Self>,
        digest: [u8; 32],
        wasm: impl FnOnce() -> std::io::Result<Bytes> + Send + 'static,
    ) -> Result<(), LoadError> {
        let component = match self.cached(&digest).await? {
            Some(component) => component,
            None => {
                let wasm = tokio::task::spawn_blocking(wasm)
                    .await
                    .map_err(|_| InstallError::Stopping)?
                    .map_err(LoadError::Source)?;
                let found: [u8; 32] = Sha256::digest(&wasm).into();
                if found != digest {
                    return Err(LoadError::OtherBinary { found: crate::artefact::hex(&found) });
                }
                inspect::step(&wasm).map_err(InstallError::from)?;
                self.component(&digest, &wasm).await?
            }
        };
        let imports: Vec<String> =
            component.component_type().imports(&self.machine).map(|(name, _)| name.to_owned()).collect();
        let plugin = self.plugin_of(&component, &imports)?;
        self.insert(digest, Arc::new(plugin));
        Ok(())
    }

    /// Compiled code from the cache, else from the compiler.
    pub(crate) async fn component(
        self: &Arc<Self>,
        digest: &[u8; 32],
        wasm: &Bytes,
    ) -> Result<Component, InstallError> {
        if let Some(component) = self.cached(digest).await? {
            return Ok(component);
        }
        let _one_at_a_time = self.compiling.lock().await;
        // Somebody may have compiled the same one meanwhile.
        if let Some(component) = self.cached(digest).await? {
            return Ok(component);
        }
        let scratch = Scratch(self.cache.scratch(digest));
        compiler::compile(&self.config.compiler, wasm, &scratch.0).await?;
        self.counters.compilations.fetch_add(1, Ordering::Relaxed);
        let (this, digest) = (self.clone(), *digest);
        tokio::task::spawn_blocking(move || {
            this.cache.adopt(&digest, &scratch.0).map_err(InstallError::Cache)?;
            let misfit = || {
                InstallError::Misfit(
                    "it needs more memories, tables or instances than this host gives".into(),
                )
            };
            this.cache.load(&this.machine, &digest).ok_or_else(misfit)
        })
        .await
        .map_err(|_| InstallError::Stopping)?
    }

    async fn cached(self: &Arc<Self>, digest: &[u8; 32]) -> Result<Option<Component>, InstallError> {
        let (this, digest) = (self.clone(), *digest);
        tokio::task::spawn_blocking(move || this.cache.load(&this.machine, &digest))
            .await
            .map_err(|_| InstallError::Stopping)
    }

    fn plugin_of(&self, component: &Component, imports: &[String]) -> Result<Plugin, InstallError> {
        let misfit = |error: wasmtime::Error| InstallError::Misfit(format!("{error:#}"));
        let pre = self.linker.instantiate_pre(component).map_err(misfit)?;
        let pre = StepPre::new(pre).map_err(misfit)?;
        Ok(Plugin { pre, http: inspect::imports_http(imports) })
    }

    async fn describe(&self, plugin: &Plugin) -> Result<Manifest, InstallError> {
        let bounds = self.describe_bounds();
        let Ok(_permit) = self.permit(None, &bounds.cancel).await else {
            return Err(InstallError::Describe(lost()));
        };
        let given = self.nothing_given([0; 32]);
        let no_way_out = |denials| self.no_way_out(denials);
        let ended = driver::drive(self, bounds, given, no_way_out, async |store| {
            let step = plugin.pre.instantiate_async(&mut *store).await?;
            step.reipaz_step_handler().call_describe(&mut *store).await
        })
        .await;
        let said = ended.returned.map_err(|mut failure| {
            if let Some(last) = ended.logs.last() {
                failure.message =
                    format!("{} Its last words: {}", failure.message, cut(last.message.clone(), 500));
            }
            InstallError::Describe(failure)
        })?;
        checked(said)
    }
}

fn checked(said: handler::Manifest) -> Result<Manifest, InstallError> {
    let mut mistakes = Vec::new();
    let mut json = |what: &str, text: &str| -> Value {
        if text.len() > limits::SCHEMA_BYTES {
            mistakes.push(format!("its {what} has more than {} KiB", limits::SCHEMA_BYTES >> 10));
        }
        serde_json::from_str(text).unwrap_or_else(|error| {
            mistakes.push(format!("its {what} is no JSON: {error}"));
            Value::Bool(true)
        })
    };
    let input_schema = json("input schema", &said.input_schema);
    let output_schema = json("output schema", &said.output_schema);
    let extra = match said.extra.as_str() {
        "" => Value::Object(serde_json::Map::new()),
        text => json("extra", text),
    };
    let grants =
        said.grants.into_iter().map(|g| GrantRequest { kind: g.kind, value: g.value, why: g.why }).collect();
    let manifest = Manifest {
        name: said.name,
        version: said.version,
        summary: cut(said.summary, limits::MESSAGE_BYTES),
        input_schema,
        output_schema,
        grants,
        extra,
    };
    mistakes.extend(manifest.mistakes());
    if mistakes.is_empty() { Ok(manifest) } else { Err(InstallError::Manifest(mistakes)) }
}

/// Removes what a compiler that did not finish left.
struct Scratch(std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
