//! The only unsafe code of the engine: compiled code is loaded from a file.
//!
//! # Safety argument
//!
//! `deserialize_file` executes what the file says. Three things together make that sound. The file was written by a child
//! process that we started from our own program ([`crate::compiler`]), which gave wasmtime's own serialization of what
//! Cranelift made of a validated component. It lies in a folder that only this user may enter (0700), it was put there by
//! an atomic rename and is never written again. And its SHA-256 was compared with the one that was noted when it was made
//! ([`crate::artefact`]), so that a torn write, a bad disk or a restored backup is found before, and recompiled; wasmtime
//! itself checks its version and every code-relevant setting in the file's head. Whoever can still put a file and its
//! checksum there already runs code as this user.

#![allow(unsafe_code)]

use std::path::Path;

use wasmtime::Engine;
use wasmtime::component::Component;

/// Maps a checked file of the private cache into memory.
pub(crate) fn load(engine: &Engine, checked: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the module's argument; the only caller is `artefact::Cache::open`, which checks folder and checksum.
    unsafe { Component::deserialize_file(engine, checked) }
}
