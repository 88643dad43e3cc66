//! The binary's command line, run as a script runs it: no terminal, output captured.

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::host::binary;

/// A command that takes longer is stuck.
const ENDS_WITHIN: Duration = Duration::from_secs(180);

/// How a command ended.
#[derive(Debug)]
pub struct Output {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Its exit code; -1 if a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// The output itself, once the command succeeded.
    #[track_caller]
    pub fn success(self) -> Self {
        assert!(self.status.success(), "{}\n{}\n{}", self.status, self.stdout, self.stderr);
        self
    }

    /// Standard output as one JSON value.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }
}

/// `reipaz`, with a working folder and an environment.
#[derive(Clone, Debug)]
pub struct Cli {
    folder: PathBuf,
    environment: Vec<(String, String)>,
}

impl Cli {
    /// `reipaz` in `folder`, aimed at no host.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), environment: Vec::new() }
    }

    /// With an environment variable.
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs it to its end.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        self.run_program(binary().as_os_str(), arguments, "").await
    }

    /// Runs it to its end, with something on its standard input.
    pub async fn run_with_input(&self, arguments: &[&str], input: &str) -> Output {
        self.run_program(binary().as_os_str(), arguments, input).await
    }

    /// Runs another program in the same folder and environment.
    pub async fn run_program(
        &self,
        program: impl AsRef<std::ffi::OsStr>,
        arguments: &[&str],
        input: &str,
    ) -> Output {
        let mut child = Command::new(program)
            .args(arguments)
            .env_remove("REIPAZ_URL")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the command starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        // A command that does not read its input may have gone already.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = tokio::time::timeout(ENDS_WITHIN, child.wait_with_output())
            .await
            .unwrap_or_else(|_| panic!("{arguments:?} did not end within {ENDS_WITHIN:?}"))
            .expect("the command can be waited for");
        Output {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
