//! Where libchdb, the embedded ClickHouse, lies on this machine: the one rule that the host, the set-up and the tests
//! share. It finds and checks a file; it fetches nothing (`xtask/src/chdb.rs` does) and loads nothing
//! (`embedded/chdb.rs` does).

use std::{
    env, fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

/// The engine's version that this build was tested with.
pub const VERSION: &str = "26.5.3";

/// Names the library explicitly.
pub const PATH_VARIABLE: &str = "REIPAZ_CHDB";

/// Moves the whole cache (default `$XDG_CACHE_HOME/reipaz`, else `~/.cache/reipaz`).
pub const CACHE_VARIABLE: &str = "REIPAZ_CACHE_DIR";

/// The command that fetches the library.
pub const SETUP_COMMAND: &str = "cargo xtask setup";

const FILE_NAME: &str = "libchdb.so";

/// What the library's file must be, where this build knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// SHA-256 of the file, lower-case hex.
    pub sha256: &'static str,
    /// Its size.
    pub bytes: u64,
}

/// The pinned file for this platform; `None` where only the package around it is pinned.
pub const fn pin() -> Option<Pin> {
    if cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")) {
        Some(Pin {
            sha256: "4330da79405733f7572f27c1442f46c03a08301f00859dce0368645731b1e1dc",
            bytes: 559_044_752,
        })
    } else {
        None
    }
}

/// Why there is no usable library.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// Nowhere.
    #[error(
        "the embedded ClickHouse (libchdb {VERSION}) is not on this machine; looked at {}. \
         Get it with `{SETUP_COMMAND}`, or name it in {PATH_VARIABLE} or in the configuration (clickhouse.library)",
        List(.looked)
    )]
    Missing {
        /// Each path that was looked at.
        looked: Vec<PathBuf>,
    },
    /// Not a shared library at all, or cut short.
    #[error("{} is no usable libchdb: {why}. Delete it and run `{SETUP_COMMAND}`", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Could not be read.
    #[error("{} cannot be read: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

struct List<'a>(&'a [PathBuf]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, path) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}", path.display())?;
        }
        Ok(())
    }
}

/// The folder for what a set-up obtains once: outside any build directory, so that it survives a clean.
pub fn cache_root() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set(CACHE_VARIABLE)
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("reipaz")))
        .or_else(|| set("HOME").map(|home| home.join(".cache").join("reipaz")))
}

/// Where the set-up puts the library.
pub fn cache_path() -> Option<PathBuf> {
    Some(cache_root()?.join("chdb").join(VERSION).join(FILE_NAME))
}

/// Finds the library: the configured path, else the one in [`PATH_VARIABLE`], else the cache, else `lib/` beside the
/// binary. A path that somebody named is not silently replaced by another.
pub fn find(configured: Option<&Path>) -> Result<PathBuf, LibraryError> {
    let named = configured
        .map(Path::to_path_buf)
        .or_else(|| env::var_os(PATH_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from));
    let looked = match named {
        Some(path) => vec![path],
        None => cache_path().into_iter().chain(beside_binary()).collect(),
    };
    match looked.iter().find(|path| path.exists()) {
        Some(path) => check(path).map(|()| path.clone()),
        None => Err(LibraryError::Missing { looked }),
    }
}

fn beside_binary() -> Option<PathBuf> {
    Some(env::current_exe().ok()?.parent()?.join("lib").join(FILE_NAME))
}

/// Cheap check before each load: a whole shared library of the pinned size, if it stands in the cache. The checksum
/// of half a gigabyte is verified when the file is put there, and again when loading it fails ([`verify`]).
fn check(path: &Path) -> Result<(), LibraryError> {
    let unreadable = |source| LibraryError::Unreadable { path: path.to_path_buf(), source };
    let corrupt = |why| Err(LibraryError::Corrupt { path: path.to_path_buf(), why });
    let mut file = fs::File::open(path).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    if let Some(pin) = pin()
        && cache_path().as_deref() == Some(path)
        && bytes != pin.bytes
    {
        return corrupt(format!("it has {bytes} bytes instead of {}", pin.bytes));
    }
    let mut magic = [0; 4];
    match file.read_exact(&mut magic) {
        Ok(()) if is_shared_library(magic) => Ok(()),
        Ok(()) => corrupt("it is not a shared library".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            corrupt(format!("it has {bytes} bytes"))
        }
        Err(error) => Err(unreadable(error)),
    }
}

/// ELF, or Mach-O of 64 bits.
fn is_shared_library(magic: [u8; 4]) -> bool {
    if cfg!(target_os = "macos") { magic == [0xCF, 0xFA, 0xED, 0xFE] } else { magic == *b"\x7FELF" }
}

/// Reads the whole file and compares it with the pin (about a second). `Ok` where there is no pin to compare with.
pub fn verify(path: &Path) -> Result<(), LibraryError> {
    let Some(pin) = pin() else { return Ok(()) };
    let found =
        sha256(path).map_err(|source| LibraryError::Unreadable { path: path.to_path_buf(), source })?;
    if found == pin.sha256 {
        Ok(())
    } else {
        let why = format!("its SHA-256 is {found}, and that of libchdb {VERSION} is {}", pin.sha256);
        Err(LibraryError::Corrupt { path: path.to_path_buf(), why })
    }
}

/// SHA-256 of a file, lower-case hex.
pub fn sha256(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => hash.update(&buffer[..length]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
