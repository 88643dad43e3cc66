//! `reipaz new`: something to start from. The files lie in `sdk/template` and are part of the binary.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    exit::{Code, Done, Failure},
    output,
};

/// Path in the new folder and content; both hold `{{name}}`.
const FILES: [(&str, &str); 4] = [
    ("Cargo.toml", include_str!("../../../../sdk/template/Cargo.toml.template")),
    ("src/lib.rs", include_str!("../../../../sdk/template/lib.rs.template")),
    ("{{name}}.yaml", include_str!("../../../../sdk/template/workflow.yaml.template")),
    (".gitignore", include_str!("../../../../sdk/template/gitignore.template")),
];

/// Where this binary was built from: its SDK is the one that fits.
const SDK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sdk/rust");

/// Names that Rust, cargo or the template itself has taken.
const TAKEN: [&str; 12] = [
    "alloc",
    "core",
    "input",
    "output",
    "proc_macro",
    "reipaz_sdk",
    "schemars",
    "serde",
    "std",
    "test",
    "tests",
    "main",
];
const KEYWORDS: &str = " abstract as async await become box break const continue crate do dyn else enum extern false final \
     fn for gen if impl in let loop macro match mod move mut override priv pub ref return self static struct super trait \
     true try type typeof unsafe unsized use virtual where while yield ";

/// Makes something to start from.
#[derive(Clone, Debug, clap::Subcommand)]
#[command(after_help = "\
Example:
  reipaz new step greet")]
pub(crate) enum Command {
    Step(StepArgs),
}

/// Makes a step in Rust, with a test and a workflow that uses it.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz new step greet
  reipaz plugin install greet
  reipaz run greet/greet.yaml --set name=Ana")]
pub(crate) struct StepArgs {
    /// The step's name: lower-case letters, digits and _, a letter first
    name: String,
    /// Where to make its folder
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
}

/// See [`Command`].
pub(crate) fn run(command: Command) -> Done {
    let Command::Step(StepArgs { name, dir }) = command;
    check(&name)?;
    let folder = dir.join(&name);
    if folder.exists() {
        return Err(
            Failure::usage(format!("{} is there already", folder.display())).hint("choose another name")
        );
    }
    write(&folder, &name, &sdk(Path::new(SDK))).map_err(|error| {
        Failure::new(Code::Usage, format!("cannot write into {}: {error}", folder.display()))
    })?;
    output::line(&format!(
        "{} holds the step {name}, its test, and a workflow that uses it",
        folder.display()
    ));
    let shown = folder.strip_prefix(".").unwrap_or(&folder).display();
    output::note("  next: reipaz serve &    if no host runs yet");
    output::note(&format!("        reipaz plugin install {shown}"));
    output::note(&format!("        reipaz run {shown}/{name}.yaml --set name=Ana"));
    Ok(())
}

fn check(name: &str) -> Done {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    let rest = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !first || !rest || name.len() > 64 {
        return Err(Failure::usage(format!("{name:?} is no name of a step"))
            .hint("take lower-case letters, digits and _, a letter first, as in fetch_orders"));
    }
    if TAKEN.contains(&name) || KEYWORDS.contains(&format!(" {name} ")) {
        return Err(Failure::usage(format!("{name:?} means something else in Rust"))
            .hint(format!("take {name}_step, say")));
    }
    Ok(())
}

/// How the new step's manifest names the SDK: by path while this binary's sources are there, else by the release.
fn sdk(sources: &Path) -> String {
    match sources.canonicalize() {
        Ok(path) if path.join("Cargo.toml").is_file() => {
            format!("{{ path = {:?} }}", path.display().to_string())
        }
        _ => {
            let (repository, version) = (env!("CARGO_PKG_REPOSITORY"), env!("CARGO_PKG_VERSION"));
            format!("{{ git = \"{repository}\", tag = \"v{version}\" }}")
        }
    }
}

fn write(folder: &Path, name: &str, sdk: &str) -> std::io::Result<()> {
    for (path, content) in FILES {
        let path = folder.join(path.replace("{{name}}", name));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, content.replace("{{name}}", name).replace("{{sdk}}", sdk))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_step_has_its_name_everywhere_and_no_gap_left() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), "greet", &sdk(Path::new(SDK))).expect("written");
        for file in ["Cargo.toml", "src/lib.rs", "greet.yaml", ".gitignore"] {
            let text = fs::read_to_string(folder.path().join(file)).expect("written");
            assert!(!text.contains("{{"), "{file}: {text}");
        }
        let manifest = fs::read_to_string(folder.path().join("Cargo.toml")).expect("written");
        let manifest: toml::Table = manifest.parse().expect("TOML");
        let sdk = manifest["dependencies"]["reipaz-sdk"]["path"].as_str().expect("a path");
        assert!(Path::new(sdk).join("src/lib.rs").is_file(), "{sdk}");
    }

    #[test]
    fn without_sources_the_release_is_named() {
        let named = sdk(Path::new("/nowhere"));
        assert!(named.contains("git = ") && named.contains(env!("CARGO_PKG_VERSION")), "{named}");
    }

    #[test]
    fn names_that_would_not_build_are_refused() {
        for name in ["", "Greet", "1st", "a-b", "match", "test", "größe", "a b", "../x"] {
            assert!(check(name).is_err(), "{name:?}");
        }
        for name in ["greet", "fetch_orders2"] {
            assert!(check(name).is_ok(), "{name:?}");
        }
    }
}
