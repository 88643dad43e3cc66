//! `reipaz dev`: a host that follows a folder. A changed step is built and installed, a changed workflow published, and
//! each time it says what happened and what to do next.
//!
//! It looks at modification times twice a second instead of asking the kernel for notice: that works on every file
//! system, and a project has tens of files.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::time::{MissedTickBehavior, interval};

use super::{
    build,
    client::Client,
    document::Document,
    exit::{Done, Failure},
    output,
    plugin::{self, Grants},
    serve::{self, HostArgs, Signals},
};
use crate::serve::Host;

/// How often the folder is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A folder with more files than this below `src` is watched in part.
const FILES_MOST: usize = 2_000;
/// Folders below the project that may hold workflows, and those that may hold steps; `.` is the project itself.
const WORKFLOW_FOLDERS: [&str; 2] = [".", "workflows"];
const STEP_FOLDERS: [&str; 3] = [".", "steps", "plugins"];

/// Runs a host that follows a folder: builds and installs changed steps, publishes changed workflows.
///
/// Looks for workflow documents in DIR and DIR/workflows, and for steps (crates that use reipaz-sdk) in DIR, its folders,
/// and those of DIR/steps and DIR/plugins.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz dev
  reipaz dev ./my-project --listen 127.0.0.1:9000")]
pub(crate) struct Args {
    /// The folder to follow
    #[arg(default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    host: HostArgs,
}

/// See [`Args`].
pub(crate) async fn run(args: Args) -> Done {
    if !args.dir.is_dir() {
        return Err(Failure::usage(format!("{} is no folder", args.dir.display())));
    }
    let config = args.host.config()?;
    let token = config.tokens.first().cloned();
    serve::start_logging(config.log_json, "warn");
    serve::raise_file_limit();
    let mut signals = Signals::new()?;
    let host = Host::start(config).await.map_err(serve::failure)?;
    let client = Client::new(&format!("http://{}", host.address()), token.as_deref())?;
    output::note(&format!("Reipaz answers at {} (Ctrl-C stops it)", client.url()));

    let mut folder = Folder { dir: args.dir, client, seen: BTreeMap::new(), greeted: false };
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let follow = async {
        loop {
            looks.tick().await;
            folder.look().await;
        }
    };
    let mut host = host;
    tokio::select! {
        () = follow => Ok(()),
        error = host.failed() => Err(serve::failure(error)),
        () = signals.next() => {
            output::note("stopping");
            host.stop().await.map_err(serve::failure)
        }
    }
}

/// The folder and what was seen of it.
struct Folder {
    dir: PathBuf,
    client: Client,
    /// By step folder or document: the newest change that was dealt with.
    seen: BTreeMap<PathBuf, SystemTime>,
    greeted: bool,
}

impl Folder {
    /// Looks once, and deals with what changed: steps first, because workflows use them.
    async fn look(&mut self) {
        let steps = steps(&self.dir);
        let documents = documents(&self.dir);
        let mut installed = false;
        for (step, changed) in &steps {
            if self.is_new(step, *changed) {
                installed |= self.install(step).await;
            }
        }
        let mut published = Vec::new();
        for (document, changed) in &documents {
            if self.is_new(document, *changed) || installed {
                published.extend(self.publish(document).await);
            }
        }
        if !self.greeted {
            self.greeted = true;
            greet(&self.dir, steps.len(), documents.len());
        }
        if let Some(name) = published.first() {
            output::note(&format!(
                "  next: reipaz submit {name} --input '{{}}' --wait 10s{}",
                self.url_argument()
            ));
        }
    }

    fn url_argument(&self) -> String {
        let url = self.client.url();
        if url == super::client::DEFAULT_URL { String::new() } else { format!(" --url {url}") }
    }

    fn is_new(&mut self, path: &Path, changed: SystemTime) -> bool {
        self.seen.insert(path.to_owned(), changed) != Some(changed)
    }

    async fn install(&self, step: &Path) -> bool {
        output::note(&format!("{}: building", step.display()));
        let installed = async {
            let file = build::component(step).await?;
            plugin::send(&self.client, &file, Grants::These(&[]), true).await
        };
        match installed.await {
            Ok(installed) => {
                let plugin = &installed.plugin;
                output::note(&format!("{}: installed as {}@{}", step.display(), plugin.name, plugin.version));
                plugin::warn_of_missing_grants(plugin);
                installed.created
            }
            Err(failure) => {
                failure.report();
                false
            }
        }
    }

    /// The workflow's name, if its document is sound.
    async fn publish(&self, path: &Path) -> Option<String> {
        let published = match Document::read(path) {
            Ok(document) => document.publish(&self.client).await,
            Err(failure) => Err(failure),
        };
        match published {
            Ok(published) if published.created => {
                let (name, version) = (&published.name, published.version);
                output::note(&format!("{}: published {name} version {version}", path.display()));
                Some(published.name)
            }
            Ok(_) => None,
            Err(failure) => {
                failure.report();
                None
            }
        }
    }
}

fn greet(dir: &Path, steps: usize, documents: usize) {
    output::note(&format!("following {}: {steps} step(s), {documents} workflow(s)", dir.display()));
    if steps == 0 && documents == 0 {
        output::note(
            "  next: reipaz new step hello     a step to start from; this command builds and installs it",
        );
        output::note(
            "        then write hello.yaml    a workflow with `uses: hello@0`; this command publishes it",
        );
    } else {
        output::note("  next: change one and save it; what comes of it is said here");
    }
}

/// Workflow documents and when they changed.
fn documents(dir: &Path) -> Vec<(PathBuf, SystemTime)> {
    let files = WORKFLOW_FOLDERS.iter().flat_map(|folder| entries(&dir.join(folder)));
    let is_document = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("");
        matches!(extension, "yaml" | "yml" | "json")
            && fs::read_to_string(path).is_ok_and(|text| is_workflow(&text))
    };
    files
        .filter(|path| path.is_file())
        .filter(is_document)
        .filter_map(|path| modified(&path).map(|time| (path, time)))
        .collect()
}

/// Whether a text means to be a workflow: it names the language's version at its top.
fn is_workflow(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("reipaz:"))
        || text.trim_start().starts_with('{') && text.contains("\"reipaz\"")
}

/// Folders of steps and when anything in them changed.
fn steps(dir: &Path) -> Vec<(PathBuf, SystemTime)> {
    let below = STEP_FOLDERS.iter().flat_map(|folder| entries(&dir.join(folder)));
    let folders = std::iter::once(dir.to_owned()).chain(below.filter(|path| path.is_dir()));
    let uses_sdk = |path: &PathBuf| {
        fs::read_to_string(path.join("Cargo.toml"))
            .is_ok_and(|text| text.contains("reipaz-sdk") && text.contains("cdylib"))
    };
    folders.filter(uses_sdk).filter_map(|path| newest(&path).map(|time| (path, time))).collect()
}

/// What lies in a folder, without what is hidden or made by cargo.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = found
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or(".");
            !name.starts_with('.') && name != "target"
        })
        .take(FILES_MOST)
        .collect();
    paths.sort();
    paths
}

/// The newest change of a step's sources.
fn newest(step: &Path) -> Option<SystemTime> {
    let mut newest = modified(&step.join("Cargo.toml"))?;
    let mut folders = vec![step.join("src")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            files += 1;
            if files > FILES_MOST {
                return Some(newest);
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Some(time) = modified(&path) {
                newest = newest.max(time);
            }
        }
    }
    Some(newest)
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workflows_and_steps_are_found_and_nothing_else() {
        // Given a project.
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("inside")).expect("created");
            fs::write(path, text).expect("written");
        };
        write("a.yaml", "# first\nreipaz: 1\nname: a\n");
        write("workflows/b.json", "{\"reipaz\": 1}");
        write("compose.yaml", "services: {}\n");
        write("package.json", "{\"name\": \"x\"}");
        write(
            "steps/score/Cargo.toml",
            "[lib]\ncrate-type = [\"cdylib\"]\n[dependencies]\nreipaz-sdk = \"0.1\"\n",
        );
        write("steps/score/src/lib.rs", "");
        write("steps/tool/Cargo.toml", "[dependencies]\n");
        write("target/x/Cargo.toml", "reipaz-sdk cdylib");

        // Then its two workflows and its one step are found.
        let names = |found: Vec<(PathBuf, SystemTime)>| -> Vec<String> {
            let name = |path: &Path| path.file_name().expect("named").to_string_lossy().into_owned();
            found.iter().map(|(path, _)| name(path)).collect()
        };
        assert_eq!(names(documents(folder.path())), ["a.yaml", "b.json"]);
        assert_eq!(names(steps(folder.path())), ["score"]);
    }
}
