//! The parent's side of the engine's process: starts it, hears where it serves, notices its end.
//!
//! One thread per child starts it and waits for it. On Linux "die with your parent" means the *thread* that forked, so
//! that thread must live as long as the child, which a runtime's worker does not promise.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{oneshot, watch};

use super::child::{Ready, TOKEN_VARIABLE};

/// How long the engine may take to open its data directory.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// What is kept of the engine's last words.
const LAST_WORDS_BYTES_MAX: usize = 4 << 10;
/// Variables that the engine's process inherits; the rest (credentials, say) is none of its business.
const KEPT_VARIABLES: &[&str] =
    &["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ", "LANG", "LLVM_PROFILE_FILE", "RUST_BACKTRACE"];

/// Why the engine does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// This process could not start another.
    #[error("cannot start {program:?}: {source}")]
    Spawn { program: OsString, source: std::io::Error },
    /// The library is there, but useless.
    #[error("{0}")]
    BadLibrary(String),
    /// The engine said why.
    #[error("the embedded ClickHouse did not start: {0}")]
    Failed(String),
    /// The engine died before it said anything.
    #[error("the embedded ClickHouse died while starting ({status}){last_words}")]
    Died { status: String, last_words: String },
    /// It is still starting.
    #[error("the embedded ClickHouse did not start within {} s", START_TIMEOUT.as_secs())]
    Slow,
}

/// A running engine. Dropping it ends the process.
pub(crate) struct Engine {
    pub(crate) url: String,
    pub(crate) token: String,
    pub(crate) process: u32,
    /// Closing it is what ends the child.
    _stdin: ChildStdin,
    ended: watch::Receiver<Option<String>>,
}

impl Engine {
    /// Starts `command` (program and first arguments) with the library and the data directory behind it.
    pub(crate) async fn start(command: &[OsString], library: &Path, dir: &Path) -> Result<Self, StartError> {
        let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        let (spawned_sender, spawned) = oneshot::channel();
        let (ready_sender, ready) = oneshot::channel();
        let (ended_sender, ended) = watch::channel(None);
        let start = Start {
            command: command.to_vec(),
            library: library.to_path_buf(),
            dir: dir.to_path_buf(),
            token: token.clone(),
        };
        let thread = std::thread::Builder::new().name("clickhouse-parent".to_owned());
        let thread = thread.spawn(move || start.run(spawned_sender, ready_sender, &ended_sender));
        thread.map_err(|source| StartError::Spawn { program: "a thread".into(), source })?;
        let gone = || StartError::Died { status: "its thread ended".to_owned(), last_words: String::new() };
        // From here on, giving up closes the child's standard input, and so ends it.
        let Spawned { stdin, process } = spawned.await.map_err(|_| gone())??;
        let port = tokio::time::timeout(START_TIMEOUT, ready).await.map_err(|_| StartError::Slow)?;
        let port = port.map_err(|_| gone())??;
        Ok(Self { url: format!("http://127.0.0.1:{port}"), token, process, _stdin: stdin, ended })
    }

    /// Waits for the process to end and says how it did.
    pub(crate) async fn ended(&self) -> String {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(status) => status.clone().unwrap_or_default(),
            Err(_) => "its thread ended".to_owned(),
        }
    }

    /// Ends the process and waits until it has let go of its directory.
    pub(crate) async fn stop(self) {
        let Self { _stdin: stdin, mut ended, .. } = self;
        drop(stdin);
        let _ = ended.wait_for(Option::is_some).await;
    }
}

struct Spawned {
    stdin: ChildStdin,
    process: u32,
}

struct Start {
    command: Vec<OsString>,
    library: PathBuf,
    dir: PathBuf,
    token: String,
}

impl Start {
    /// The thread: from the child's start to its end.
    fn run(
        self,
        spawned: oneshot::Sender<Result<Spawned, StartError>>,
        ready: oneshot::Sender<Result<u16, StartError>>,
        ended: &watch::Sender<Option<String>>,
    ) {
        let (mut child, stdin) = match self.spawn() {
            Ok(spawned) => spawned,
            Err(error) => return drop(spawned.send(Err(error))),
        };
        // If nobody waits any more, the pipe closes here and the child ends.
        drop(spawned.send(Ok(Spawned { stdin, process: child.id() })));
        let last_words = LastWords::listen(&mut child);
        let first_line = child.stdout.take().map(|stdout| {
            let mut line = String::new();
            // Whatever cannot be read is no JSON either.
            let _ = BufReader::new(stdout).read_line(&mut line);
            line
        });
        let said = first_line.as_deref().and_then(|line| serde_json::from_str::<Ready>(line).ok());
        if let Some(Ready::Serving { port, .. }) = said {
            drop(ready.send(Ok(port)));
            let status = describe(child.wait());
            ended.send_replace(Some(format!("{status}{}", last_words.text())));
            return;
        }
        let status = describe(child.wait());
        drop(ready.send(Err(match said {
            Some(Ready::BadLibrary(why)) => StartError::BadLibrary(why),
            Some(Ready::Failed(why)) => StartError::Failed(format!("{why}{}", last_words.text())),
            _ => StartError::Died { status, last_words: last_words.text() },
        })));
    }

    fn spawn(&self) -> Result<(Child, ChildStdin), StartError> {
        let program = self.command.first().cloned().unwrap_or_default();
        let kept = KEPT_VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        let failed = |source| StartError::Spawn { program: program.clone(), source };
        let mut child = Command::new(&program)
            .args(self.command.iter().skip(1))
            .arg("--library")
            .arg(&self.library)
            .arg("--dir")
            .arg(&self.dir)
            .env_clear()
            .envs(kept)
            // Where the engine would look for a configuration of the user's own.
            .env("HOME", &self.dir)
            .env(TOKEN_VARIABLE, &self.token)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal goes to the whole group; the engine is still needed while the host stops.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let stdin = child.stdin.take().ok_or_else(|| failed(std::io::ErrorKind::BrokenPipe.into()))?;
        Ok((child, stdin))
    }
}

fn describe(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}

/// The end of what the engine wrote to standard error; all of it goes to the log.
#[derive(Clone, Default)]
struct LastWords(Arc<Mutex<String>>);

impl LastWords {
    fn listen(child: &mut Child) -> Self {
        let words = Self::default();
        let Some(stderr) = child.stderr.take() else { return words };
        let kept = words.clone();
        let thread = std::thread::Builder::new().name("clickhouse-stderr".to_owned());
        let spawned = thread.spawn(move || {
            let mut reader = BufReader::new(stderr);
            let mut line = Vec::new();
            while let Ok(1..) = reader.by_ref().take(LAST_WORDS_BYTES_MAX as u64).read_until(b'\n', &mut line)
            {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                tracing::warn!(line = %text, "clickhouse");
                kept.keep(&text);
                line.clear();
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "nobody listens to the embedded ClickHouse's standard error");
        }
        words
    }

    fn keep(&self, line: &str) {
        let mut words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        words.push_str(line);
        words.push(' ');
        if words.len() > LAST_WORDS_BYTES_MAX {
            let cut = words.ceil_char_boundary(words.len() - LAST_WORDS_BYTES_MAX);
            words.drain(..cut);
        }
    }

    fn text(&self) -> String {
        let words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if words.is_empty() { String::new() } else { format!(": {}", words.trim_end()) }
    }
}
