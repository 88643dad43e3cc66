//! The engine's own process: what `reipaz internal-clickhouse` runs. It lives as long as its parent: the kernel ends it
//! when the parent dies, and it ends itself when its standard input is closed.
//!
//! To its parent it says one line of JSON on standard output ([`Ready`]), and then nothing more.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::AsFd as _,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    chdb::Library,
    confine::confine,
    http::{Server, serve},
    sessions::Sessions,
};

/// The variable with the token that requests must carry. In the environment, because arguments are public.
pub(super) const TOKEN_VARIABLE: &str = "REIPAZ_CLICKHOUSE_TOKEN";

/// ClickHouse checks how deep its parser may recurse against the stack it finds; it expects the usual 8 MiB.
const QUERY_STACK_BYTES: usize = 8 << 20;

/// Smaller than a server's: one host's rows, on a machine that mostly does something else.
const ENGINE_ARGUMENTS: &[&str] = &["--mark_cache_size=67108864", "--index_mark_cache_size=16777216"];

/// What the child tells its parent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ready {
    /// It serves.
    Serving {
        /// On 127.0.0.1.
        port: u16,
        /// The engine's.
        version: String,
    },
    /// The library cannot be used.
    BadLibrary(String),
    /// Anything else.
    Failed(String),
}

/// The main function of the child: `--library FILE --dir DIR`, the token in the environment.
pub fn clickhouse_child_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (stdin, mut stdout) = match take_standard_streams() {
        Ok(streams) => streams,
        Err(error) => {
            eprintln!("cannot take over the standard streams: {error}");
            return ExitCode::FAILURE;
        }
    };
    let said = |stdout: &mut File, ready: &Ready| -> io::Result<()> {
        let line = serde_json::to_string(ready)?;
        writeln!(stdout, "{line}")?;
        stdout.flush()
    };
    match prepare(arguments, stdin) {
        Ok((server, listener)) => {
            let port = match listener.local_addr() {
                Ok(address) => address.port(),
                Err(_) => return ExitCode::FAILURE,
            };
            let ready = Ready::Serving { port, version: server.version.clone() };
            if said(&mut stdout, &ready).is_err() {
                return ExitCode::FAILURE;
            }
            drop(stdout);
            run(server, listener)
        }
        Err(ready) => {
            // A parent that is gone needs no answer.
            let _ = said(&mut stdout, &ready);
            ExitCode::FAILURE
        }
    }
}

/// The parent's pipes, taken away from the numbers 0 and 1: the engine reads data of an INSERT without any from
/// standard input, and must neither wait there nor write between the lines.
fn take_standard_streams() -> io::Result<(File, File)> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(io::stderr())?;
    Ok((File::from(stdin), File::from(stdout)))
}

fn prepare(
    arguments: impl IntoIterator<Item = OsString>,
    stdin: File,
) -> Result<(Server, std::net::TcpListener), Ready> {
    let failed = |what: &str, error: &dyn std::fmt::Display| Ready::Failed(format!("{what}: {error}"));
    let Arguments { library, dir, port } = Arguments::read(arguments).map_err(Ready::Failed)?;
    let token = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| Ready::Failed(format!("{TOKEN_VARIABLE} is not set")))?;
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|error| failed("prctl", &error))?;
    std::fs::create_dir_all(&dir).map_err(|error| failed(&format!("{}", dir.display()), &error))?;
    let dir = dir.canonicalize().map_err(|error| failed(&format!("{}", dir.display()), &error))?;
    let library = library
        .canonicalize()
        .map_err(|error| Ready::BadLibrary(format!("{}: {error}", library.display())))?;
    std::env::set_current_dir(&dir).map_err(|error| failed("cannot enter the data directory", &error))?;
    let listener =
        std::net::TcpListener::bind(("127.0.0.1", port)).map_err(|error| failed("cannot listen", &error))?;
    listener.set_nonblocking(true).map_err(|error| failed("cannot listen", &error))?;
    confine(&dir, &library).map_err(|error| failed("cannot confine the engine", &error))?;
    // No thread before this line, or it would not be confined.
    die_with(stdin);
    let loaded = Library::load(library.as_os_str())
        .map_err(|error| Ready::BadLibrary(format!("{}: {error}", library.display())))?;
    let sessions =
        Sessions::start(loaded, dir, ENGINE_ARGUMENTS).map_err(|error| Ready::Failed(error.to_string()))?;
    let version = sessions.version().map_err(Ready::Failed)?;
    Ok((Server::new(sessions, token, version), listener))
}

struct Arguments {
    library: PathBuf,
    dir: PathBuf,
    /// Any free one when absent.
    port: u16,
}

impl Arguments {
    fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let (mut library, mut dir, mut port) = (None, None, 0);
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--library") => library = arguments.next(),
                Some("--dir") => dir = arguments.next(),
                Some("--port") => {
                    let text = arguments.next().unwrap_or_default();
                    let number = text.to_str().and_then(|text| text.parse().ok());
                    port = number.ok_or_else(|| format!("--port {}: not a port", text.display()))?;
                }
                _ => return Err(format!("unknown argument {}", argument.display())),
            }
        }
        match (library, dir) {
            (Some(library), Some(dir)) => Ok(Self { library: library.into(), dir: dir.into(), port }),
            _ => Err("expected --library FILE --dir DIR [--port PORT]".to_owned()),
        }
    }
}

/// Ends the process when the parent closes its end. At once: whatever was acknowledged is on disk, and the engine's
/// own destructors have nothing to add.
fn die_with(mut stdin: File) {
    std::thread::spawn(move || {
        let mut byte = [0];
        loop {
            match stdin.read(&mut byte) {
                Ok(1..) => {}
                // The engine's profiler sends signals to any thread.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    });
}

fn run(server: Server, listener: std::net::TcpListener) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_stack_size(QUERY_STACK_BYTES)
        .thread_name("clickhouse-query")
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async move {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => serve(listener, Arc::new(server)).await,
            Err(error) => eprintln!("cannot listen: {error}"),
        }
    });
    ExitCode::FAILURE
}
