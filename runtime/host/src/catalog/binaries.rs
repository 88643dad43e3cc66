//! Where plugin components lie, named by their digest and checked against it: in a folder of this host's, and, where hosts share
//! the work, in an object store that all of them reach.

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, path::Path as Place};
use reipaz_core::ids::Digest;

/// See the module.
pub(crate) struct Binaries {
    folder: PathBuf,
    shared: Shared,
}

enum Shared {
    /// There are no other hosts.
    NotNeeded,
    /// There may be, and they see nothing of what is installed here.
    Missing,
    Store(Arc<dyn ObjectStore>, Place),
}

/// A component that is not to be had, or cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BinaryError {
    /// This host's own folder.
    #[error("{}: {source}", path.display())]
    Folder { path: PathBuf, source: std::io::Error },
    /// The store that hosts share.
    #[error("the plugin store: {0}")]
    Store(#[from] object_store::Error),
    /// Something else is there.
    #[error("the plugin store has another component under {0}")]
    OtherBinary(Digest),
    /// Neither here nor shared.
    #[error("the component {0} is not on this host, and hosts share no plugin store (set `plugin_store`)")]
    Nowhere(Digest),
}

impl Binaries {
    /// `url` names the store that hosts share; `scaled` says whether there can be other hosts.
    pub(crate) fn new(
        folder: PathBuf,
        url: Option<&str>,
        scaled: bool,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let shared = match url {
            None if scaled => Shared::Missing,
            None => Shared::NotNeeded,
            Some(url) => {
                if let Some(folder) = shared_folder(url)? {
                    std::fs::create_dir_all(folder)?;
                }
                let (store, place) = shared_store(url)?;
                Shared::Store(store, place)
            }
        };
        Ok(Self { folder, shared })
    }

    /// The folder, which exists from here on.
    pub(crate) fn create_folder(&self) -> Result<(), BinaryError> {
        std::fs::create_dir_all(&self.folder).map_err(|source| self.failed(&self.folder, source))
    }

    /// Whether other hosts can get what is installed here.
    pub(crate) fn reach_everybody(&self) -> bool {
        !matches!(self.shared, Shared::Missing)
    }

    /// Where this host keeps it.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(name(digest))
    }

    /// Keeps a component, here and where other hosts find it.
    pub(crate) async fn write(&self, digest: &Digest, wasm: Bytes) -> Result<(), BinaryError> {
        if let Shared::Store(store, place) = &self.shared {
            store.put(&place.clone().join(name(digest)), wasm.clone().into()).await?;
        }
        self.write_here(digest, wasm).await
    }

    /// Makes sure that it is in this host's folder.
    pub(crate) async fn fetch(&self, digest: &Digest) -> Result<(), BinaryError> {
        if self.path(digest).exists() {
            return Ok(());
        }
        let Shared::Store(store, place) = &self.shared else { return Err(BinaryError::Nowhere(*digest)) };
        let wasm = store.get(&place.clone().join(name(digest))).await?.bytes().await?;
        if Digest::of(&wasm) != *digest {
            return Err(BinaryError::OtherBinary(*digest));
        }
        self.write_here(digest, wasm).await
    }

    async fn write_here(&self, digest: &Digest, wasm: Bytes) -> Result<(), BinaryError> {
        let path = self.path(digest);
        let written = tokio::task::spawn_blocking({
            let path = path.clone();
            move || write_binary(&path, &wasm)
        });
        let failed = |source| self.failed(&path, source);
        written.await.map_err(|error| failed(std::io::Error::other(error)))?.map_err(failed)
    }

    fn failed(&self, path: &Path, source: std::io::Error) -> BinaryError {
        BinaryError::Folder { path: path.to_owned(), source }
    }
}

/// The folder that a `file://` URL stands for.
pub(crate) fn shared_folder(url: &str) -> Result<Option<PathBuf>, Box<dyn std::error::Error>> {
    let url = url::Url::parse(url)?;
    if url.scheme() != "file" {
        return Ok(None);
    }
    Ok(Some(url.to_file_path().map_err(|()| "a file:// URL needs an absolute path")?))
}

/// The store that a URL stands for, and the place in it.
pub(crate) fn shared_store(url: &str) -> Result<(Arc<dyn ObjectStore>, Place), Box<dyn std::error::Error>> {
    let (store, place) = object_store::parse_url_opts(&url::Url::parse(url)?, std::env::vars())?;
    Ok((Arc::from(store), place))
}

fn name(digest: &Digest) -> String {
    let hex = digest.to_string();
    format!("{}.wasm", hex.trim_start_matches("sha256:"))
}

/// Whole or not at all: a temporary file, made durable, then renamed.
fn write_binary(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if path.exists() && std::fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn another_host_gets_what_was_installed_here() {
        let root = tempfile::tempdir().expect("a folder");
        let url = format!("file://{}", root.path().join("shared").display());
        let host = |name: &str| {
            let binaries = Binaries::new(root.path().join(name), Some(&url), true).expect("a store");
            binaries.create_folder().expect("a folder");
            binaries
        };
        let (first, second) = (host("first"), host("second"));
        let wasm = Bytes::from_static(b"a component");
        let digest = Digest::of(&wasm);
        assert!(second.fetch(&digest).await.is_err(), "nobody has it yet");
        first.write(&digest, wasm.clone()).await.expect("kept");
        second.fetch(&digest).await.expect("fetched");
        assert_eq!(std::fs::read(second.path(&digest)).expect("there"), wasm);
    }

    #[tokio::test]
    async fn what_is_not_what_its_name_says_is_refused() {
        let root = tempfile::tempdir().expect("a folder");
        let shared = root.path().join("shared");
        let url = format!("file://{}", shared.display());
        let binaries = Binaries::new(root.path().join("host"), Some(&url), true).expect("a store");
        binaries.create_folder().expect("a folder");
        let digest = Digest::of(b"a component");
        std::fs::write(shared.join(name(&digest)), b"another").expect("written");
        assert!(matches!(binaries.fetch(&digest).await, Err(BinaryError::OtherBinary(_))));
        assert!(!binaries.path(&digest).exists());
    }
}
