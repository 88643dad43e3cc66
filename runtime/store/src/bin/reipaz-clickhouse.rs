//! The embedded ClickHouse's process alone: what `reipaz internal-clickhouse` runs. For this crate's tests, and for
//! looking at a data directory with curl: `REIPAZ_CLICKHOUSE_TOKEN=x reipaz-clickhouse --library FILE --dir DIR`.

fn main() -> std::process::ExitCode {
    reipaz_store::clickhouse_child_main(std::env::args_os().skip(1))
}
