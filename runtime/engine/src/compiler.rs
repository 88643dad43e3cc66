//! Compilation, in a child process and one at a time: Cranelift takes hundreds of megabytes for a JavaScript or Python
//! component, and a component that crashed it would otherwise crash the host.
//!
//! The child gets the binary on its standard input and the artefact's path as its last argument, writes the artefact, and
//! says on its standard error what is wrong if it cannot.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::config::CompilerCommand;
use crate::{limits, machine};

/// How much of the child's complaint is kept, in bytes.
const COMPLAINT_BYTES: u64 = 8 << 10;

/// The child's exit status for a component that is at fault itself.
const REFUSED: u8 = 2;

/// Why there is no compiled code.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The component is not valid, or not within the engine's features.
    #[error("the component cannot be compiled: {0}")]
    Refused(String),
    /// It takes too long.
    #[error("the component takes more than {} s to compile", limits::COMPILE_TIMEOUT.as_secs())]
    Timeout,
    /// The child could not do its work; not the component's fault, unless it asks for too much memory.
    #[error("the compiler ({program}) failed: {what}")]
    Child {
        /// The program.
        program: String,
        /// What is known.
        what: String,
    },
}

/// Compiles in a child of its own.
pub(crate) async fn compile(command: &CompilerCommand, wasm: &Bytes, to: &Path) -> Result<(), CompileError> {
    let program = command.argv.first().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
    let failed = |what: String| CompileError::Child { program: program.clone(), what };
    let [first, rest @ ..] = command.argv.as_slice() else {
        return Err(failed("its command is empty".to_owned()));
    };
    let mut child = Command::new(first)
        .args(rest)
        .arg(to)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let mut stdin = child.stdin.take().ok_or_else(|| failed("it has no standard input".to_owned()))?;
    let stderr = child.stderr.take().ok_or_else(|| failed("it has no standard error".to_owned()))?;
    let work = async {
        // A child that dies early closes its input; its complaint says why.
        let feed = async {
            let _ = stdin.write_all(wasm).await;
            drop(stdin);
        };
        let mut complaint = String::new();
        let mut limited = stderr.take(COMPLAINT_BYTES);
        let (_, read) = tokio::join!(feed, limited.read_to_string(&mut complaint));
        let status = child.wait().await?;
        read.map(|_| (status, complaint))
    };
    let (status, complaint) = tokio::time::timeout(limits::COMPILE_TIMEOUT, work)
        .await
        .map_err(|_| CompileError::Timeout)?
        .map_err(|error| failed(error.to_string()))?;
    let complaint = complaint.trim().to_owned();
    match status.code() {
        Some(0) => Ok(()),
        Some(code) if code == i32::from(REFUSED) => Err(CompileError::Refused(complaint)),
        Some(code) => Err(failed(format!("exit status {code}: {complaint}"))),
        None => Err(failed(format!("killed; perhaps it ran out of memory. {complaint}"))),
    }
}

/// The whole of the compiling child: the component on standard input, the artefact to the path in the last argument.
pub fn compile_child_main() -> ExitCode {
    let Some(path) = std::env::args_os().next_back().map(PathBuf::from) else { return ExitCode::FAILURE };
    match compile_stdin(&path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(ChildError::Component(error)) => {
            eprintln!("{error:#}");
            ExitCode::from(REFUSED)
        }
        Err(ChildError::Io(error)) => {
            eprintln!("{}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

enum ChildError {
    Component(wasmtime::Error),
    Io(io::Error),
}

fn compile_stdin(path: &Path) -> Result<(), ChildError> {
    let mut wasm = Vec::new();
    let bound = limits::PLUGIN_BYTES as u64 + 1;
    io::stdin().lock().take(bound).read_to_end(&mut wasm).map_err(ChildError::Io)?;
    let engine = wasmtime::Engine::new(&machine::config(None)).map_err(ChildError::Component)?;
    let code = engine.precompile_component(&wasm).map_err(ChildError::Component)?;
    let mut file = fs::File::create(path).map_err(ChildError::Io)?;
    file.write_all(&code).map_err(ChildError::Io)
}
