//! The compiling child by itself, for this crate's tests and benches; in the product the `reipaz` binary is its own child.

fn main() -> std::process::ExitCode {
    reipaz_engine::compile_child_main()
}
