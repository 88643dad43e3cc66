//! The cache of compiled code. A file is named after the component's SHA-256 and the compatibility hash of wasmtime, flags
//! and processor, so a new build or another machine finds nothing and compiles anew. Beside each lies its checksum; what does
//! not match is removed and compiled again, never loaded.
//!
//! All of this blocks; call it where that is allowed.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::{limits, native};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    compatibility: u64,
}

/// Why a cache folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It cannot be made, read or written.
    #[error("the cache of compiled plugins at {path}: {source}")]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody else owns it, and could put code into it.
    #[error(
        "the cache of compiled plugins at {0} belongs to another user; remove it or choose another folder"
    )]
    Foreign(PathBuf),
}

impl Cache {
    /// Makes the folder private, and removes what no build of this kind will load and what is over the bound.
    pub(crate) fn open(dir: &Path, compatibility: u64, max_bytes: u64) -> Result<Self, CacheError> {
        let io = |source| CacheError::Io { path: dir.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        let dir = fs::canonicalize(dir).map_err(io)?;
        let about = fs::metadata(&dir).map_err(io)?;
        if about.uid() != rustix::process::geteuid().as_raw() {
            return Err(CacheError::Foreign(dir));
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).map_err(io)?;
        let cache = Self { dir, compatibility };
        cache.prune(max_bytes).map_err(io)?;
        Ok(cache)
    }

    /// Where the code of this component lies, or will.
    pub(crate) fn path(&self, digest: &[u8; 32]) -> PathBuf {
        self.dir.join(format!("{}-{:016x}.cwasm", hex(digest), self.compatibility))
    }

    /// A place for one compiler to write to; never the same twice.
    pub(crate) fn scratch(&self, digest: &[u8; 32]) -> PathBuf {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{}.{}.{count}.tmp", hex(digest), std::process::id()))
    }

    /// Takes what the compiler wrote into the cache.
    pub(crate) fn adopt(&self, digest: &[u8; 32], scratch: &Path) -> io::Result<()> {
        let path = self.path(digest);
        let sum = checksum(scratch)?;
        fs::set_permissions(scratch, fs::Permissions::from_mode(0o400))?;
        let scratch_sum = scratch.with_extension("sum.tmp");
        fs::write(&scratch_sum, sum)?;
        fs::rename(&scratch_sum, sum_path(&path))?;
        fs::rename(scratch, &path)
    }

    /// Loads the code, if it is there and whole.
    pub(crate) fn load(&self, engine: &Engine, digest: &[u8; 32]) -> Option<Component> {
        let path = self.path(digest);
        let noted = fs::read_to_string(sum_path(&path)).ok()?;
        let found = checksum(&path).ok()?;
        let loaded = if noted == found {
            native::load(engine, &path).inspect_err(
                |error| tracing::warn!(path = %path.display(), %error, "compiled code is refused"),
            )
        } else {
            tracing::warn!(path = %path.display(), "compiled code is damaged; compiling anew");
            Err(wasmtime::format_err!("damaged"))
        };
        match loaded {
            Ok(component) => {
                // Its time of use, for the bound.
                let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
                Some(component)
            }
            Err(_) => {
                let _ = fs::remove_file(&path);
                let _ = fs::remove_file(sum_path(&path));
                None
            }
        }
    }

    fn prune(&self, max_bytes: u64) -> io::Result<()> {
        let ours = format!("-{:016x}.cwasm", self.compatibility);
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // A compiler's file may have got its final name meanwhile.
            let Ok(about) = entry.metadata() else { continue };
            if name.ends_with(&ours) {
                kept.push((about.modified()?, about.len(), entry.path()));
            } else if name.ends_with(".cwasm") {
                let _ = fs::remove_file(entry.path());
                let _ = fs::remove_file(sum_path(&entry.path()));
            } else if name.ends_with(".tmp") && is_abandoned(&about) {
                let _ = fs::remove_file(entry.path());
            }
        }
        kept.sort();
        let mut total: u64 = kept.iter().map(|(_, len, _)| len).sum();
        for (_, len, path) in kept {
            if total <= max_bytes {
                break;
            }
            let _ = fs::remove_file(&path);
            let _ = fs::remove_file(sum_path(&path));
            total -= len;
        }
        Ok(())
    }
}

/// Whether no compiler can still be writing it: another host may share the folder in tests and upgrades.
fn is_abandoned(about: &fs::Metadata) -> bool {
    let age = about.modified().ok().and_then(|at| at.elapsed().ok());
    age.is_some_and(|age| age > 2 * limits::COMPILE_TIMEOUT)
}

fn sum_path(path: &Path) -> PathBuf {
    path.with_extension("cwasm.sha256")
}

fn checksum(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine() -> Engine {
        Engine::new(&crate::machine::config(None)).expect("an engine")
    }

    fn filled(dir: &Path, engine: &Engine) -> (Cache, [u8; 32]) {
        let cache = Cache::open(dir, 7, u64::MAX).expect("a cache");
        let digest = [1; 32];
        let code = engine.precompile_component(EMPTY_COMPONENT).expect("code");
        let scratch = cache.scratch(&digest);
        fs::write(&scratch, code).expect("written");
        cache.adopt(&digest, &scratch).expect("adopted");
        (cache, digest)
    }

    const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

    #[test]
    fn what_was_adopted_is_loaded() {
        let dir = tempfile::tempdir().expect("a folder");
        let engine = engine();
        let (cache, digest) = filled(dir.path(), &engine);
        assert!(cache.load(&engine, &digest).is_some());
        assert!(cache.load(&engine, &[2; 32]).is_none());
        assert_eq!(fs::metadata(dir.path()).expect("about it").permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn one_flipped_bit_is_found_and_the_file_removed() {
        let dir = tempfile::tempdir().expect("a folder");
        let engine = engine();
        let (cache, digest) = filled(dir.path(), &engine);
        let path = cache.path(&digest);
        let mut bytes = fs::read(&path).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::remove_file(&path).expect("removed");
        fs::write(&path, bytes).expect("written");
        assert!(cache.load(&engine, &digest).is_none());
        assert!(!path.exists());
    }

    #[test]
    fn what_another_build_left_and_what_is_too_much_goes() {
        let dir = tempfile::tempdir().expect("a folder");
        let engine = engine();
        let (cache, digest) = filled(dir.path(), &engine);
        let other = Cache::open(dir.path(), 8, u64::MAX).expect("a cache");
        assert!(!cache.path(&digest).exists());
        let (cache, digest) = filled(dir.path(), &engine);
        drop(other);
        Cache::open(dir.path(), 7, 10).expect("a cache");
        assert!(!cache.path(&digest).exists());
    }
}
