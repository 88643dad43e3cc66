//! The SDK carries a copy of the contract and the bindings generated from it, so that a step builds without either generator or
//! repository. These tests keep both true; `REIPAZ_BLESS=1` writes them anew.

use std::path::Path;
use std::{env, fs};

use wit_bindgen_core::wit_parser::Resolve;
use wit_bindgen_core::{Files, WorldGenerator as _};

#[test]
fn the_copy_of_the_contract_is_the_contract() {
    let contract = read("../../wit/step.wit");
    check("wit/step.wit", &contract);
}

#[test]
fn the_bindings_are_those_of_the_contract() {
    let mut resolve = Resolve::default();
    let package = resolve.push_path(path("wit/step.wit")).expect("the contract parses").0;
    let world = resolve.select_world(&[package], Some("step")).expect("the contract has the world");

    let mut files = Files::default();
    let options = wit_bindgen_rust::Opts {
        format: true,
        pub_export_macro: true,
        export_macro_name: Some("__export_bindings".to_owned()),
        default_bindings_module: Some("reipaz_sdk::__private::bindings".to_owned()),
        ..Default::default()
    };
    options.build().generate(&mut resolve, world, &mut files).expect("bindings");
    let (_, bindings) = files.iter().next().expect("one file");

    check("src/guest/bindings.rs", std::str::from_utf8(bindings).expect("UTF-8"));
}

fn check(file: &str, expected: &str) {
    if env::var_os("REIPAZ_BLESS").is_some() && read(file) != expected {
        fs::write(path(file), expected).expect("written");
    }
    assert!(
        read(file) == expected,
        "{file} is out of date: REIPAZ_BLESS=1 cargo test -p reipaz-sdk --test bindings"
    );
}

fn read(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_default()
}

fn path(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}
