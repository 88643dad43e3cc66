//! Components that no SDK would build: dummies of any world, and a step written by hand whose body is WebAssembly text.

use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{ManglingAndAbi, Resolve};

const STEP_WIT: &str = include_str!("../../../../wit/step.wit");

/// A component of this world, every function of which traps. `deps` are packages that it uses.
pub(crate) fn dummy(wit: &str, deps: &[&str]) -> Vec<u8> {
    component(wit, deps, None)
}

/// A step by hand: `fields` are its module's own, `run` the body of run, which returns the address of its result.
pub(crate) fn step(fields: &str, run: &str) -> Vec<u8> {
    step_with_schema(fields, run, "{}")
}

/// The same, with this for an input schema.
pub(crate) fn step_with_schema(fields: &str, run: &str, input_schema: &str) -> Vec<u8> {
    let texts = ["synthetic", "1.0.0", "", input_schema, "{}", "", "{}"];
    let mut data = String::new();
    let mut record = Vec::new();
    let mut at = 256_u32;
    for text in texts {
        data.push_str(&format!("(data (i32.const {at}) {text:?})\n"));
        record.extend_from_slice(&at.to_le_bytes());
        record.extend_from_slice(&(text.len() as u32).to_le_bytes());
        // The list among them must be aligned, even when it is empty.
        at = (at + text.len() as u32).next_multiple_of(4);
    }
    let record: String = record.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let module = format!(
        r#"(module
            (memory (export "memory") 1)
            (global $top (mut i32) (i32.const 4096))
            {fields}
            (data (i32.const 128) "{record}")
            {data}
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (global.set $top (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
                (global.get $top)
                (global.set $top (i32.add (global.get $top) (local.get 3))))
            (func (export "reipaz:step/handler@0.1.0#describe") (result i32) (i32.const 128))
            (func (export "reipaz:step/handler@0.1.0#run")
                (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i64 i32 i32 i32 i32) (result i32)
                {run}))"#
    );
    component("package t:t; world w { export reipaz:step/handler@0.1.0; }", &[STEP_WIT], Some(&module))
}

fn component(wit: &str, deps: &[&str], module: Option<&str>) -> Vec<u8> {
    let mut resolve = Resolve::default();
    for (i, dep) in deps.iter().enumerate() {
        resolve.push_str(format!("dep{i}.wit"), dep).unwrap();
    }
    let package = resolve.push_str("main.wit", wit).unwrap();
    let world = resolve.select_world(&[package], None).unwrap();
    let mut module = match module {
        Some(text) => wat::parse_str(text).unwrap(),
        None => dummy_module(&resolve, world, ManglingAndAbi::Standard32),
    };
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}
