//! The data directory: there or to be made, ours alone, writable, with room, and in nobody else's hands.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use reipaz_journal::{Embedded, EmbeddedConfig};
use rustix::fs::{Access, StatVfs, access, statvfs};

use super::{Finding, gib};
use crate::config::Config;

const DIRECTORY: &str = "data directory";
const SPACE: &str = "disk space";
const JOURNAL: &str = "journal";

/// Below this, or below [`FREE_PERCENT_MIN`], there is too little room for comfort.
const FREE_BYTES_MIN: u64 = 5 << 30;
const FREE_PERCENT_MIN: u64 = 5;
/// Below this a host will soon refuse what is submitted.
const FREE_BYTES_NEEDED: u64 = 256 << 20;

pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    let config = config.clone();
    let looked = tokio::task::spawn_blocking(move || look(&config)).await;
    looked.unwrap_or_else(|error| {
        vec![Finding::fail(DIRECTORY, error.to_string(), "this is a mistake in Reipaz: report it")]
    })
}

fn look(config: &Config) -> Vec<Finding> {
    let dir = &config.data_dir;
    let mut findings = vec![directory(dir)];
    match room(dir) {
        Ok(stat) => findings.push(space(
            stat.f_bavail.saturating_mul(stat.f_frsize),
            stat.f_blocks.saturating_mul(stat.f_frsize),
        )),
        Err(error) => findings.push(Finding::warn(
            SPACE,
            format!("unknown: {error}"),
            format!("look at it by `df -h {}`", dir.display()),
        )),
    }
    if config.kafka.is_none() {
        findings.push(journal(config));
    }
    findings
}

fn directory(dir: &Path) -> Finding {
    let shown = dir.display();
    let metadata = match fs::metadata(dir) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return absent(dir),
        Err(error) => {
            let mend = "let the user that runs the host reach it, or choose another with --data-dir";
            return Finding::fail(DIRECTORY, format!("{shown}: {error}"), mend);
        }
    };
    if !metadata.is_dir() {
        return Finding::fail(
            DIRECTORY,
            format!("{shown} is no directory"),
            "choose another with --data-dir",
        );
    }
    if let Err(error) = tempfile::tempfile_in(dir) {
        let mend = format!(
            "give it to the user that runs the host (`chown`), or choose another with --data-dir: {shown}"
        );
        return Finding::fail(DIRECTORY, format!("{shown} cannot be written: {error}"), mend);
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        let detail = format!(
            "{shown} is open to other users (mode {mode:o}); inputs and outputs of runs are in there"
        );
        return Finding::warn(DIRECTORY, detail, format!("chmod 700 {shown}"));
    }
    Finding::ok(DIRECTORY, format!("{shown} is private and writable"))
}

fn absent(dir: &Path) -> Finding {
    let (shown, parent) = (dir.display(), existing(dir));
    match access(&parent, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::ok(DIRECTORY, format!("{shown} is not there yet; a host makes it")),
        Err(error) => Finding::fail(
            DIRECTORY,
            format!("{shown} is not there and cannot be made in {}: {error}", parent.display()),
            "make it for the user that runs the host, or choose another with --data-dir",
        ),
    }
}

/// The nearest directory above that is there.
fn existing(dir: &Path) -> PathBuf {
    let above = dir.ancestors().find(|above| above.exists());
    match above {
        Some(above) if !above.as_os_str().is_empty() => above.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn room(dir: &Path) -> io::Result<StatVfs> {
    Ok(statvfs(existing(dir))?)
}

fn space(free: u64, all: u64) -> Finding {
    let percent = (u128::from(free) * 100).checked_div(u128::from(all)).unwrap_or(0) as u64;
    let detail = format!("{} of {} free ({percent} %)", gib(free), gib(all));
    let mend = "free some space, or move the data directory to a larger disk";
    if free < FREE_BYTES_NEEDED {
        Finding::fail(SPACE, detail, mend)
    } else if free < FREE_BYTES_MIN || percent < FREE_PERCENT_MIN {
        Finding::warn(SPACE, detail, mend)
    } else {
        Finding::ok(SPACE, detail)
    }
}

/// Who uses the journal in it, and whether it is what is configured.
fn journal(config: &Config) -> Finding {
    let dir = config.paths().journal;
    match Embedded::examine(&EmbeddedConfig::new(&dir, config.partitions)) {
        Ok(Some(holder)) => {
            let who = holder.pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
            Finding::ok(JOURNAL, format!("in use by {who}: a host is running on it"))
        }
        Ok(None) if dir.exists() => {
            Finding::ok(JOURNAL, format!("in use by nobody, {} partitions", config.partitions))
        }
        Ok(None) => Finding::ok(JOURNAL, "not there yet; a host makes it"),
        Err(error) => Finding::fail(
            JOURNAL,
            error.to_string(),
            "a host refuses to start with it; do what the line above says",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{super::Status, *};

    #[test]
    fn room_is_judged_by_size_and_by_share() {
        let gib = 1 << 30;
        for (free, all, status) in [
            (50 * gib, 100 * gib, Status::Ok),
            (4 * gib, 10 * gib, Status::Warn),
            (40 * gib, 1000 * gib, Status::Warn),
            (gib / 8, 100 * gib, Status::Fail),
            (0, 0, Status::Fail),
        ] {
            assert_eq!(space(free, all).status, status, "{free} of {all}");
        }
    }

    #[test]
    fn a_directory_is_looked_at_and_left_alone() {
        let root = tempfile::tempdir().expect("a folder");
        let dir = root.path().join("a").join("b");
        assert_eq!(directory(&dir).status, Status::Ok);
        assert!(!root.path().join("a").exists(), "nothing was made");
        fs::create_dir_all(&dir).expect("made");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("set");
        let open = directory(&dir);
        assert_eq!(open.status, Status::Warn);
        assert_eq!(open.mend, [format!("chmod 700 {}", dir.display())]);
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("set");
        assert_eq!(directory(&dir).status, Status::Ok);
        assert_eq!(fs::read_dir(&dir).expect("read").count(), 0, "nothing is left");
        fs::write(root.path().join("file"), "").expect("written");
        assert_eq!(directory(&root.path().join("file")).status, Status::Fail);
    }

    #[tokio::test]
    async fn a_running_host_and_another_count_are_told() {
        let root = tempfile::tempdir().expect("a folder");
        let config = Config { data_dir: root.path().to_owned(), ..Config::default() };
        assert_eq!(journal(&config).detail, "not there yet; a host makes it");
        let settings = EmbeddedConfig::new(config.paths().journal, config.partitions);
        let held = Embedded::open(settings).await.expect("open");
        let running = journal(&config);
        assert_eq!(running.status, Status::Ok);
        assert!(running.detail.contains(&std::process::id().to_string()), "{}", running.detail);
        drop(held);
        let other = Config { partitions: 7, ..config };
        let refused = journal(&other);
        assert_eq!(refused.status, Status::Fail);
        assert!(refused.detail.contains("made for 4 partitions"), "{}", refused.detail);
    }
}
