//! libchdb behind safe types: the only unsafe code of this crate. A [`Library`] is loaded once and never unloaded; a
//! [`Session`] runs one query at a time and keeps the settings that were set in it.
//!
//! The C interface (chdb.h of libchdb 26.5), as far as it is used here:
//!
//! - `chdb_connection *chdb_connect(int argc, char **argv)`: starts the engine on the directory of `--path` on the first
//!   call; further calls with the same path open further sessions. Null on failure.
//! - `chdb_query_with_params_n(connection, query, length, format, length, names, lengths, values, lengths, count)`:
//!   buffers with lengths, nothing needs a terminator; copies all it keeps. Never null for a live connection.
//! - `chdb_result_*`: reads of a result; pointers stay valid until `chdb_destroy_query_result`.
//! - `chdb_set_signal_handlers_enabled(0)`: the engine leaves the process's signal handlers alone.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, OsStr, c_char, c_int, c_void},
    path::Path,
};

use libloading::Library as Dynamic;

/// `chdb_connection`: a pointer to an opaque struct.
type Connection = *mut c_void;
/// `chdb_result *`.
type RawResult = *mut c_void;

/// The functions that are used, resolved once.
#[derive(Clone, Copy)]
struct Functions {
    connect: unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut Connection,
    close: unsafe extern "C" fn(*mut Connection),
    query: unsafe extern "C" fn(
        Connection,
        *const c_char,
        usize,
        *const c_char,
        usize,
        *const *const c_char,
        *const usize,
        *const *const c_char,
        *const usize,
        usize,
    ) -> RawResult,
    buffer: unsafe extern "C" fn(RawResult) -> *mut c_char,
    length: unsafe extern "C" fn(RawResult) -> usize,
    error: unsafe extern "C" fn(RawResult) -> *const c_char,
    rows_read: unsafe extern "C" fn(RawResult) -> u64,
    rows_written: unsafe extern "C" fn(RawResult) -> u64,
    destroy: unsafe extern "C" fn(RawResult),
}

/// Why the engine could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    /// The file is not a library that this process can load, or not libchdb.
    #[error("it cannot be loaded: {0}")]
    Load(#[from] libloading::Error),
    /// The path has a zero byte.
    #[error("the data directory's path has a zero byte")]
    Path,
    /// The data directory cannot be written.
    #[error("the data directory cannot be written: {0}")]
    Folder(std::io::Error),
    /// The engine refused the directory; it has said why on standard error.
    #[error("the engine could not open its data directory (is another process using it? is the disk full?)")]
    Open,
}

/// The loaded engine.
#[derive(Clone, Copy)]
pub(super) struct Library {
    functions: Functions,
}

impl Library {
    /// Loads the library and tells it to leave signals alone.
    pub(super) fn load(path: &OsStr) -> Result<Self, EngineError> {
        // SAFETY: loading runs the library's initialisers. The file is libchdb at a pinned checksum, or one that the
        // operator named; it is loaded at the start of a process that exists for nothing else.
        let library = unsafe { Dynamic::new(path) }?;
        // SAFETY: each symbol is resolved with the signature that chdb.h declares for it (module comment).
        let functions = unsafe {
            Functions {
                connect: *library.get(b"chdb_connect\0")?,
                close: *library.get(b"chdb_close_conn\0")?,
                query: *library.get(b"chdb_query_with_params_n\0")?,
                buffer: *library.get(b"chdb_result_buffer\0")?,
                length: *library.get(b"chdb_result_length\0")?,
                error: *library.get(b"chdb_result_error\0")?,
                rows_read: *library.get(b"chdb_result_rows_read\0")?,
                rows_written: *library.get(b"chdb_result_rows_written\0")?,
                destroy: *library.get(b"chdb_destroy_query_result\0")?,
            }
        };
        // SAFETY: `void chdb_set_signal_handlers_enabled(int)`; called before the engine starts.
        unsafe {
            let set: unsafe extern "C" fn(c_int) = *library.get(b"chdb_set_signal_handlers_enabled\0")?;
            set(0);
        }
        // Function pointers point into the library and its threads run in it: it stays until the process ends.
        std::mem::forget(library);
        Ok(Self { functions })
    }

    /// Opens a session on the engine's data directory; the first starts the engine. `arguments` are further
    /// `--setting=value` arguments, used by the first alone.
    pub(super) fn open(&self, dir: &Path, arguments: &[&str]) -> Result<Session, EngineError> {
        let path = dir.to_str().ok_or(EngineError::Path)?;
        let all = ["clickhouse".to_owned(), format!("--path={path}")];
        let arguments = all.into_iter().chain(arguments.iter().map(|argument| (*argument).to_owned()));
        let arguments: Vec<CString> =
            arguments.map(CString::new).collect::<Result<_, _>>().map_err(|_| EngineError::Path)?;
        let mut pointers: Vec<*mut c_char> = arguments.iter().map(|text| text.as_ptr().cast_mut()).collect();
        let count = c_int::try_from(pointers.len()).map_err(|_| EngineError::Path)?;
        // SAFETY: `argv` holds `argc` pointers to terminated strings that live through the call; the engine copies
        // them and does not write to them.
        let handle = unsafe { (self.functions.connect)(count, pointers.as_mut_ptr()) };
        if handle.is_null() {
            return Err(EngineError::Open);
        }
        // SAFETY: a non-null handle points to one connection.
        if unsafe { *handle }.is_null() {
            return Err(EngineError::Open);
        }
        Ok(Session { functions: self.functions, handle })
    }
}

/// One session with the engine: settings and the current database live in it.
pub(super) struct Session {
    functions: Functions,
    handle: *mut Connection,
}

// SAFETY: the engine keys nothing to the thread that opened a session: each call attaches the calling thread for its
// own length and guards the session with a mutex. `query` takes `&mut self`, so there is one call at a time anyway.
unsafe impl Send for Session {}

impl Session {
    /// Runs a statement (with inline data behind an `INSERT ... FORMAT x`) and gives its whole result. Parameters are
    /// pairs of name and value, the value in ClickHouse's escaped text form, as over HTTP.
    pub(super) fn query(&mut self, sql: &[u8], format: &str, parameters: &[(Vec<u8>, Vec<u8>)]) -> Output {
        let pointer = |text: &Vec<u8>| (text.as_ptr().cast::<c_char>(), text.len());
        let (names, name_lengths): (Vec<_>, Vec<_>) = parameters.iter().map(|pair| pointer(&pair.0)).unzip();
        let (values, value_lengths): (Vec<_>, Vec<_>) =
            parameters.iter().map(|pair| pointer(&pair.1)).unzip();
        // SAFETY: the connection is live (closed only by `drop`); every pointer comes with its length, or the four
        // arrays with their count, and lives through the call, which copies what it keeps.
        let result = unsafe {
            (self.functions.query)(
                *self.handle,
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
                names.as_ptr(),
                name_lengths.as_ptr(),
                values.as_ptr(),
                value_lengths.as_ptr(),
                parameters.len(),
            )
        };
        Output { functions: self.functions, result }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: the handle came from `chdb_connect` and is closed once; no result refers to it (they own their
        // buffers).
        unsafe { (self.functions.close)(self.handle) }
    }
}

/// A query's result: its bytes, or the engine's message.
pub(super) struct Output {
    functions: Functions,
    result: RawResult,
}

// SAFETY: a result owns its buffers, which no thread changes once the query has returned.
unsafe impl Send for Output {}
// SAFETY: as above; all that `&Output` offers is reads.
unsafe impl Sync for Output {}

impl Output {
    /// The engine's message, `Code: 60. DB::Exception: ...`, if the query failed.
    pub(super) fn error(&self) -> Option<String> {
        if self.result.is_null() {
            return Some(
                "Code: 1002. DB::Exception: the engine gave no result. (UNKNOWN_EXCEPTION)".to_owned(),
            );
        }
        // SAFETY: the result is live; the message is null or a terminated string that lives as long as it.
        let message = unsafe { (self.functions.error)(self.result) };
        if message.is_null() {
            return None;
        }
        // SAFETY: as above.
        Some(unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned())
    }

    /// Rows read and written.
    pub(super) fn rows(&self) -> (u64, u64) {
        if self.result.is_null() {
            return (0, 0);
        }
        // SAFETY: the result is live.
        unsafe { ((self.functions.rows_read)(self.result), (self.functions.rows_written)(self.result)) }
    }
}

impl AsRef<[u8]> for Output {
    fn as_ref(&self) -> &[u8] {
        if self.result.is_null() {
            return &[];
        }
        // SAFETY: the result is live.
        let (buffer, length) =
            unsafe { ((self.functions.buffer)(self.result), (self.functions.length)(self.result)) };
        if buffer.is_null() || length == 0 {
            return &[];
        }
        // SAFETY: the buffer holds `length` initialised bytes, unchanged until the result is destroyed, which takes
        // `&mut self`.
        unsafe { std::slice::from_raw_parts(buffer.cast::<u8>().cast_const(), length) }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.result.is_null() {
            // SAFETY: the result came from the query function and is destroyed once.
            unsafe { (self.functions.destroy)(self.result) }
        }
    }
}
