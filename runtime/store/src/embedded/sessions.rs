//! The engine's sessions: a bounded pool, each set once to what its requests ask for and then reused by those that
//! ask for the same. HTTP requests are stateless, the engine's sessions are not; this is where the two meet.
//!
//! Readers and writers are bounded apart, so that no number of slow queries can hold up the sink. Measured on 2 cores:
//! a second session costs 0.6 ms to open; two threads double the rate of small queries, four add a tenth.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    chdb::{EngineError, Library, Output, Session},
    insert_data,
    request::{SessionKey, Statement},
};

/// Statements that may read at once (sessions with `readonly`).
const READERS_MAX: usize = 4;
/// Statements that may write at once.
const WRITERS_MAX: usize = 4;
/// Idle sessions kept; with more distinct settings in use than this, sessions are opened anew.
const IDLE_MAX: usize = 8;
/// Where data of inserts waits for the engine, below the data directory, which is the process's current one. Relative,
/// because the engine reads `*`, `?` and `{}` in the path as patterns.
const DATA_FOLDER: &str = "inserting";

/// The engine and its sessions.
pub(super) struct Sessions {
    library: Library,
    dir: PathBuf,
    /// Never used: the engine stops when its last session is closed.
    anchor: Mutex<Session>,
    idle: Mutex<Vec<(SessionKey, Session)>>,
    readers: Semaphore,
    writers: Semaphore,
    inserts: AtomicU64,
}

/// What a statement came to.
pub(super) enum Outcome {
    /// Its result; whether it is an error, the output says.
    Done(Output),
    /// No session could be opened for it.
    NoSession(EngineError),
    /// Its data could not be handed over.
    NoSpace(io::Error),
}

impl Sessions {
    /// Starts the engine on `dir`, the process's current directory.
    pub(super) fn start(library: Library, dir: PathBuf, arguments: &[&str]) -> Result<Self, EngineError> {
        // What a killed process left.
        let _ = fs::remove_dir_all(DATA_FOLDER);
        fs::create_dir_all(DATA_FOLDER).map_err(EngineError::Folder)?;
        let anchor = Mutex::new(library.open(&dir, arguments)?);
        let (readers, writers) = (Semaphore::new(READERS_MAX), Semaphore::new(WRITERS_MAX));
        Ok(Self {
            library,
            dir,
            anchor,
            idle: Mutex::default(),
            readers,
            writers,
            inserts: AtomicU64::new(0),
        })
    }

    /// The engine's version.
    pub(super) fn version(&self) -> Result<String, String> {
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let output = anchor.query(b"SELECT version()", "TSVRaw", &[]);
        match output.error() {
            Some(message) => Err(message),
            None => Ok(String::from_utf8_lossy(output.as_ref()).trim().to_owned()),
        }
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self, key: &SessionKey) -> SemaphorePermit<'_> {
        let semaphore = if key.is_readonly() { &self.readers } else { &self.writers };
        semaphore.acquire().await.expect("the semaphores are never closed")
    }

    /// Runs a statement; blocks. The caller holds a turn.
    pub(super) fn run(&self, statement: &Statement) -> Outcome {
        let mut session = match self.take(&statement.session) {
            Ok(Ok(session)) => session,
            Ok(Err(refused)) => return Outcome::Done(refused),
            Err(error) => return Outcome::NoSession(error),
        };
        let output = match &statement.data {
            None => session.query(&statement.sql, &statement.format, &statement.parameters),
            Some(data) => {
                let number = self.inserts.fetch_add(1, Ordering::Relaxed);
                match insert(&mut session, statement, data, &format!("{DATA_FOLDER}/{number}")) {
                    Ok(output) => output,
                    Err(error) => return Outcome::NoSpace(error),
                }
            }
        };
        if !changes_session(&statement.sql) {
            self.put(statement.session.clone(), session);
        }
        Outcome::Done(output)
    }

    /// An idle session with this key, else a new one; the inner error is the engine's refusal of a setting.
    fn take(&self, key: &SessionKey) -> Result<Result<Session, Output>, EngineError> {
        {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(index) = idle.iter().rposition(|(idle_key, _)| idle_key == key) {
                return Ok(Ok(idle.remove(index).1));
            }
        }
        let mut session = self.library.open(&self.dir, &[])?;
        for statement in key.statements() {
            let output = session.query(statement.as_bytes(), "TSV", &[]);
            if output.error().is_some() {
                return Ok(Err(output));
            }
        }
        Ok(Ok(session))
    }

    fn put(&self, key: SessionKey, session: Session) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push((key, session));
        let oldest = (idle.len() > IDLE_MAX).then(|| idle.remove(0));
        drop(idle);
        // Closed outside the lock.
        drop(oldest);
    }
}

/// Runs an INSERT with its data in a file. The file is never made durable: it is gone when the answer goes out.
fn insert(session: &mut Session, statement: &Statement, data: &[u8], file: &str) -> io::Result<Output> {
    let sql = match insert_data::find(&statement.sql) {
        Some(found) => found.with_file(file),
        None => statement.sql.clone(),
    };
    fs::write(file, data)?;
    let output = session.query(&sql, &statement.format, &statement.parameters);
    fs::remove_file(Path::new(file))?;
    Ok(output)
}

/// Whether the statement may leave its session different from its key; such a session is not used again.
fn changes_session(sql: &[u8]) -> bool {
    let start = sql.trim_ascii_start();
    let word = start.split(|byte| !byte.is_ascii_alphabetic()).next().unwrap_or_default();
    // A statement that starts with a comment or a bracket is looked at no further: better a session too few.
    let plain: [&[u8]; 13] = [
        b"select",
        b"insert",
        b"with",
        b"describe",
        b"desc",
        b"show",
        b"explain",
        b"exists",
        b"alter",
        b"drop",
        b"optimize",
        b"truncate",
        b"check",
    ];
    !plain.iter().any(|known| word.eq_ignore_ascii_case(known))
}
