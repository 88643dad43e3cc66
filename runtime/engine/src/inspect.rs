//! What a binary is, before anything is compiled: whether it is a component of ours at all, and which imports it has. Its
//! messages are read by plugin authors, so each says what is wrong and what to do.

use wasmparser::{ComponentExternalKind, Encoding, Parser, Payload};

use crate::limits;

/// The package of steps, and the version that this engine speaks.
const PACKAGE: &str = "reipaz:step";
const VERSION: &str = "0.1.0";

/// The interfaces that a step may import of ours.
const OURS: &[&str] = &["log", "progress", "types"];

/// WASI packages that are given, virtual, at any 0.2.
const WASI: &[&str] = &["cli", "clocks", "filesystem", "http", "io", "random", "sockets"];

/// Why a binary is not a step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAStep {
    /// Too large.
    #[error(
        "the plugin has {bytes} bytes; at most {} are accepted. Build it in release mode and without debug information",
        limits::PLUGIN_BYTES
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Some other file.
    #[error("this is no WebAssembly: {0}")]
    NotWasm(String),
    /// A core module.
    #[error(
        "this is a core WebAssembly module, and a plugin is a component: build it for the target wasm32-wasip2 (cargo build --target wasm32-wasip2), or wrap it with wasm-tools component new"
    )]
    CoreModule,
    /// Nothing of ours is exported.
    #[error("the component exports no {PACKAGE}/handler@{VERSION}{}; write the step with an SDK, or implement the world {PACKAGE}/step", exported(.0))]
    NoHandler(Vec<String>),
    /// Made for another version.
    #[error(
        "the component is made for {found}, and this host speaks {PACKAGE}@{VERSION}; build it with a matching SDK"
    )]
    OtherVersion {
        /// The interface as the component names it.
        found: String,
    },
    /// Needs what does not exist here.
    #[error("the component imports {}, which this host does not have; a step may import {PACKAGE}/log, {PACKAGE}/progress and WASI 0.2 (cli, clocks, filesystem, http, io, random, sockets)", .0.join(" and "))]
    UnknownImports(Vec<String>),
}

fn exported(names: &[String]) -> String {
    match names {
        [] => " (it exports nothing)".to_owned(),
        names => format!(" (it exports {})", names.join(", ")),
    }
}

/// Checks the world of a step and returns what it imports, as it names them.
pub(crate) fn step(wasm: &[u8]) -> Result<Vec<String>, NotAStep> {
    let (imports, exports) = world(wasm)?;
    if !exports.iter().any(|name| speaks(name, "handler")) {
        return Err(match exports.iter().find(|name| name.starts_with("reipaz:step/handler")) {
            Some(found) => NotAStep::OtherVersion { found: found.clone() },
            None => NotAStep::NoHandler(exports),
        });
    }
    let ours_of_another_version = imports
        .iter()
        .find(|name| name.starts_with("reipaz:step/") && !OURS.iter().any(|ours| speaks(name, ours)));
    if let Some(found) = ours_of_another_version {
        let known = OURS.iter().any(|ours| found.starts_with(&format!("{PACKAGE}/{ours}@")));
        return Err(match known {
            true => NotAStep::OtherVersion { found: found.clone() },
            false => NotAStep::UnknownImports(vec![found.clone()]),
        });
    }
    let unknown: Vec<String> =
        imports.iter().filter(|name| !name.starts_with("reipaz:step/") && !is_wasi(name)).cloned().collect();
    if unknown.is_empty() { Ok(imports) } else { Err(NotAStep::UnknownImports(unknown)) }
}

/// Whether it sends requests.
pub(crate) fn imports_http(imports: &[String]) -> bool {
    imports.iter().any(|name| name.starts_with("wasi:http/outgoing-handler@"))
}

/// 0.1.x only adds, so any 0.1 that asks for no more than we have will link; what we lack, linking tells.
fn speaks(name: &str, interface: &str) -> bool {
    name.strip_prefix(PACKAGE)
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|rest| rest.strip_prefix(interface))
        .is_some_and(|version| version.starts_with("@0.1."))
}

fn is_wasi(name: &str) -> bool {
    let Some((package, version)) = name.strip_prefix("wasi:").and_then(|rest| rest.split_once('@')) else {
        return false;
    };
    let package = package.split('/').next().unwrap_or_default();
    WASI.contains(&package) && version.starts_with("0.2.")
}

/// The names at a component's outer border.
fn world(wasm: &[u8]) -> Result<(Vec<String>, Vec<String>), NotAStep> {
    if wasm.len() > limits::PLUGIN_BYTES {
        return Err(NotAStep::TooLarge { bytes: wasm.len() });
    }
    if !wasm.starts_with(b"\0asm") {
        let what = if wasm.is_empty() { "it is empty" } else { "it does not begin with \\0asm" };
        return Err(NotAStep::NotWasm(what.to_owned()));
    }
    let broken = |error: wasmparser::BinaryReaderError| NotAStep::NotWasm(error.to_string());
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(broken)? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err(NotAStep::CoreModule);
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import.map_err(broken)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.map_err(broken)?;
                    if export.kind == ComponentExternalKind::Instance {
                        exports.push(export.name.name.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}
