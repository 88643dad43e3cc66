//! The `reipaz` binary. It is also its own helpers: what compiles a plugin and what carries the embedded ClickHouse run
//! as children of the host, so that what kills them does not kill it.

use std::{env, ffi::OsStr, process::ExitCode};

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    match arguments.next().as_deref().and_then(OsStr::to_str) {
        Some("internal-compile") => reipaz_engine::compile_child_main(),
        Some("internal-clickhouse") => reipaz_store::clickhouse_child_main(arguments),
        _ => reipaz::cli::main(),
    }
}
