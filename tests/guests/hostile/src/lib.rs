//! A step for tests: its input `{"do": "...", ...}` chooses what it does, above all what no step should. It is built on the
//! bare contract, so that it can also do what the SDK would not let it.

#![cfg(target_family = "wasm")]

mod http;

use std::collections::HashMap;
use std::io::Write as _;

use serde_json::{Value, json};

wit_bindgen::generate!({ path: "../../../wit/step.wit", world: "step" });

use exports::reipaz::step::handler::{Context, Guest, Manifest, StepError};
use reipaz::step::types::{ErrorClass, GrantRequest};
use reipaz::step::{log, progress};

struct Hostile;

export!(Hostile);

impl Guest for Hostile {
    fn describe() -> Manifest {
        Manifest {
            name: "hostile".into(),
            version: "1.0.0".into(),
            summary: "Does what its input says.".into(),
            input_schema: r#"{"type": "object"}"#.into(),
            output_schema: "true".into(),
            grants: vec![GrantRequest { kind: "http".into(), value: "* *".into(), why: "to try".into() }],
            extra: "{}".into(),
        }
    }

    fn run(context: Context, input: String) -> Result<String, StepError> {
        let input: Value = serde_json::from_str(&input).map_err(failed)?;
        let number = |name: &str| input[name].as_u64().unwrap_or(0);
        let text = |name: &str| input[name].as_str().unwrap_or("").to_owned();
        let output = match text("do").as_str() {
            "echo" => input["value"].clone(),
            "context" => json!({
                "run": context.run, "workflow": context.workflow, "step": context.step, "attempt": context.attempt,
                "idempotency_key": context.idempotency_key, "now_ms": context.now_ms,
                "deadline_ms": context.deadline_ms, "metadata": context.metadata,
            }),
            "spin" => loop {
                std::hint::black_box(());
            },
            "compute" => {
                json!((0..number("n")).fold(0_u64, |sum, i| std::hint::black_box(sum.wrapping_mul(31) ^ i)))
            }
            "recurse" => json!(recurse(number("n").max(1))),
            "memory_bomb" => {
                let mut kept = Vec::new();
                loop {
                    kept.push(vec![1_u8; 1 << 20]);
                    std::hint::black_box(&kept);
                }
            }
            "memory" => {
                let bytes = vec![1_u8; number("bytes") as usize];
                json!(std::hint::black_box(bytes).len())
            }
            "panic" => panic!("as asked"),
            "divide" => {
                json!(1_i32.checked_div(std::hint::black_box(0)).unwrap_or_else(|| std::process::abort()))
            }
            "exit" => std::process::exit(number("status") as i32),
            "big_output" => return Ok(format!("\"{}\"", "x".repeat(number("bytes") as usize))),
            "raw_output" => return Ok(text("text")),
            "error" => {
                return Err(StepError {
                    class: match text("class").as_str() {
                        "transient" => ErrorClass::Transient,
                        "network" => ErrorClass::Network,
                        "timeout" => ErrorClass::Timeout,
                        "rate_limited" => ErrorClass::RateLimited,
                        _ => ErrorClass::Permanent,
                    },
                    code: text("code"),
                    message: text("message"),
                    retry_after_ms: input["retry_after_ms"].as_u64(),
                    details: input.get("details").map(Value::to_string),
                });
            }
            "log" => {
                log::log(log::Level::Info, &text("message"), &[("n".into(), "1".into())]);
                println!("to stdout");
                eprintln!("to stderr");
                Value::Null
            }
            "log_flood" => {
                for i in 0..number("lines") {
                    log::log(log::Level::Info, &format!("line {i} {}", "x".repeat(1_000)), &[]);
                }
                Value::Null
            }
            "print_flood" => {
                let mut out = std::io::stdout().lock();
                for _ in 0..number("lines") {
                    let _ = out.write_all(&[b'x'; 1_000]);
                }
                Value::Null
            }
            "call_flood" => loop {
                progress::report(0, None, "");
            },
            "handle_flood" => {
                let mut kept = Vec::new();
                loop {
                    kept.push(wasip2::clocks::monotonic_clock::subscribe_duration(1_000_000_000));
                }
            }
            "huge_call" => {
                log::log(log::Level::Info, &"x".repeat(number("bytes") as usize), &[]);
                Value::Null
            }
            "random_flood" => json!(wasip2::random::random::get_random_bytes(number("bytes")).len()),
            "progress" => {
                let mut went_on = 0;
                while progress::report(went_on, Some(number("n")), "working") && went_on < number("n") {
                    went_on += 1;
                    std::thread::sleep(std::time::Duration::from_millis(number("ms")));
                }
                json!(went_on)
            }
            "sleep" => {
                std::thread::sleep(std::time::Duration::from_millis(number("ms")));
                json!(number("ms"))
            }
            "wait_by_clock" => {
                let until = std::time::Instant::now() + std::time::Duration::from_millis(number("ms"));
                let mut looks = 0_u64;
                while std::time::Instant::now() < until {
                    looks += 1;
                }
                json!(looks)
            }
            "observe" => observe(),
            "read_file" => json!(std::fs::read_to_string(text("path")).map_err(failed)?),
            "write_file" => json!(std::fs::write(text("path"), "x").map_err(failed)?),
            "list_files" => json!(std::fs::read_dir(text("path")).map_err(failed)?.count()),
            "tcp" => json!(std::net::TcpStream::connect(text("address")).map(|_| ()).map_err(failed)?),
            "udp" => json!(std::net::UdpSocket::bind(text("address")).map(|_| ()).map_err(failed)?),
            "lookup" => {
                use std::net::ToSocketAddrs as _;
                json!((text("host"), 80).to_socket_addrs().map(Iterator::count).map_err(failed)?)
            }
            "env" => json!({
                "vars": std::env::vars().collect::<Vec<_>>(),
                "args": std::env::args().collect::<Vec<_>>(),
            }),
            "http" => http::request(&input).map_err(|error| StepError {
                class: ErrorClass::Network,
                code: "network".into(),
                message: error.clone(),
                retry_after_ms: None,
                details: Some(json!({ "error": error }).to_string()),
            })?,
            other => return Err(failed(format!("nothing is called {other:?}"))),
        };
        Ok(output.to_string())
    }
}

fn failed(error: impl ToString) -> StepError {
    StepError {
        class: ErrorClass::Permanent,
        code: "failed".into(),
        message: error.to_string(),
        retry_after_ms: None,
        details: None,
    }
}

#[inline(never)]
#[allow(unconditional_recursion)]
fn recurse(n: u64) -> u64 {
    std::hint::black_box(recurse(std::hint::black_box(n + 1))) + n
}

/// Everything that could tell one machine, moment or execution from another.
fn observe() -> Value {
    let clock = || {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        (wall.as_micros() as u64, wasip2::clocks::monotonic_clock::now())
    };
    let first = clock();
    let random = wasip2::random::random::get_random_bytes(16);
    let insecure = wasip2::random::insecure::get_insecure_random_u64();
    let seed = wasip2::random::insecure_seed::insecure_seed();
    let order: Vec<u32> = (0..20).map(|i| (i, ())).collect::<HashMap<_, _>>().into_keys().collect();
    std::thread::sleep(std::time::Duration::from_millis(7));
    let nan = std::hint::black_box(f64::NAN) * std::hint::black_box(-1.0) / std::hint::black_box(0.0);
    json!({
        "first": first, "random": random, "insecure": insecure, "seed": seed, "order": order,
        "nan": nan.to_bits(), "second": clock(),
    })
}
