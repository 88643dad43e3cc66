//! Keeps the engine's process to what it needs. SQL can name files (`file()`, `INTO OUTFILE`) and the engine would
//! read and write them with the user's rights; here the kernel refuses what lies outside the data directory.

use std::path::Path;

/// Restricts this process, for good, to its data directory, reading what any program reads (libraries, time zones,
/// the kernel's figures) and no outgoing connections. Best effort: a kernel without Landlock restricts nothing, and
/// `sql/guard.rs` refuses the known ways on its own. Must be called before threads are started.
#[cfg(target_os = "linux")]
pub(super) fn confine(dir: &Path, library: &Path) -> Result<(), landlock::RulesetError> {
    use landlock::{
        ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
        RulesetAttr as _, RulesetCreatedAttr as _, RulesetError,
    };

    // Kernel 6.7: the first with network rules.
    let abi = ABI::V4;
    let read = AccessFs::from_read(abi);
    let read_only = ["/usr", "/lib", "/lib64", "/etc/localtime", "/proc", "/sys", "/dev"];
    // An exception's stack trace reads the program's own symbols, and the engine aborts if it may not.
    let program = std::env::current_exe().unwrap_or_default();
    let readable = AccessFs::ReadFile.into();
    let rules = [(dir, AccessFs::from_all(abi)), (library, readable), (&program, readable)]
        .into_iter()
        .chain(read_only.into_iter().map(|path| (Path::new(path), read)));
    let rules = rules.filter_map(|(path, access)| {
        // What is not there needs no rule. A file takes only the rights that files have.
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(abi) };
        Some(Ok::<_, RulesetError>(PathBeneath::new(PathFd::new(path).ok()?, access)))
    });
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    let ruleset = ruleset.handle_access(AccessFs::from_all(abi))?.handle_access(AccessNet::ConnectTcp)?;
    ruleset.create()?.add_rules(rules)?.restrict_self()?;
    Ok(())
}

/// Nothing comparable without further means; `sql/guard.rs` stands alone.
#[cfg(not(target_os = "linux"))]
pub(super) fn confine(_: &Path, _: &Path) -> Result<(), std::convert::Infallible> {
    Ok(())
}
