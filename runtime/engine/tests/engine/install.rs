//! What is installed, what is refused and in which words, and the cache of compiled code.

use reipaz_engine::{Engine, InstallError, NotAStep, limits};

use crate::rig::{self, Rig, config, hostile_guest};
use crate::synthetic::{dummy, step, step_with_schema};

const STEP_WIT: &str = include_str!("../../../../wit/step.wit");

async fn refused(rig: &Rig, wasm: Vec<u8>) -> InstallError {
    rig.engine.install(wasm.into()).await.unwrap_err()
}

#[tokio::test]
async fn a_step_is_installed_and_says_what_it_is() {
    let rig = Rig::new().await;
    let installed = rig.engine.install(hostile_guest().into()).await.unwrap();
    assert_eq!((installed.manifest.name.as_str(), installed.manifest.version.as_str()), ("hostile", "1.0.0"));
    assert_eq!(installed.manifest.input_schema, serde_json::json!({"type": "object"}));
    assert!(
        installed.imports.iter().any(|import| import == "reipaz:step/log@0.1.0"),
        "{:?}",
        installed.imports
    );
    assert_eq!(installed.size_bytes, hostile_guest().len());
    assert_eq!(rig.engine.stats().plugins, 1, "installing it twice changes nothing");
}

#[tokio::test]
async fn what_is_no_component_is_refused_in_its_own_words() {
    let rig = Rig::new().await;
    let text = refused(&rig, b"name: orders".to_vec()).await;
    assert!(matches!(text, InstallError::NotAStep(NotAStep::NotWasm(_))), "{text}");
    let empty = refused(&rig, Vec::new()).await;
    assert!(empty.to_string().contains("empty"), "{empty}");
    let module = refused(&rig, wat::parse_str("(module)").unwrap()).await;
    assert!(matches!(module, InstallError::NotAStep(NotAStep::CoreModule)), "{module}");
    assert!(module.to_string().contains("wasm32-wasip2"), "{module}");
    let huge = refused(&rig, vec![0; limits::PLUGIN_BYTES + 1]).await;
    assert!(matches!(huge, InstallError::NotAStep(NotAStep::TooLarge { .. })), "{huge}");
    let cut = refused(&rig, hostile_guest()[..1_000].to_vec()).await;
    assert!(matches!(cut, InstallError::NotAStep(NotAStep::NotWasm(_))), "{cut}");
}

#[tokio::test]
async fn a_component_of_another_world_is_refused() {
    let rig = Rig::new().await;
    let other = dummy("package a:b; interface i { f: func(); } world w { export i; }", &[]);
    let error = refused(&rig, other).await;
    assert!(
        matches!(&error, InstallError::NotAStep(NotAStep::NoHandler(exports)) if exports == &["a:b/i"]),
        "{error}"
    );

    let newer = STEP_WIT.replace("reipaz:step@0.1.0", "reipaz:step@0.2.0");
    let error = refused(&rig, dummy(&newer, &[])).await;
    assert!(matches!(error, InstallError::NotAStep(NotAStep::OtherVersion { .. })), "{error}");
    assert!(error.to_string().contains("reipaz:step/handler@0.2.0"), "{error}");
}

#[tokio::test]
async fn an_unknown_import_is_named() {
    let rig = Rig::new().await;
    let acme = "package acme:db@1.0.0; interface query { f: func(); }";
    let world = "package t:t; world w { import acme:db/query@1.0.0; export reipaz:step/handler@0.1.0; }";
    let error = refused(&rig, dummy(world, &[STEP_WIT, acme])).await;
    assert!(
        matches!(&error, InstallError::NotAStep(NotAStep::UnknownImports(names)) if names == &["acme:db/query@1.0.0"]),
        "{error}"
    );

    let newer_wasi = "package wasi:io@0.3.0; interface error { f: func(); }";
    let world = "package t:t; world w { import wasi:io/error@0.3.0; export reipaz:step/handler@0.1.0; }";
    let error = refused(&rig, dummy(world, &[STEP_WIT, newer_wasi])).await;
    assert!(matches!(error, InstallError::NotAStep(NotAStep::UnknownImports(_))), "{error}");
}

#[tokio::test]
async fn a_handler_or_an_import_of_other_types_does_not_fit() {
    let rig = Rig::new().await;
    let other_types =
        "package reipaz:step@0.1.0; interface handler { run: func() -> u32; } world step { export handler; }";
    let error = refused(&rig, dummy(other_types, &[])).await;
    assert!(matches!(error, InstallError::Misfit(_)), "{error}");
    let newer_function = STEP_WIT.replace("interface log {", "interface log { later: func();");
    let error = refused(&rig, dummy(&newer_function, &[])).await;
    assert!(matches!(&error, InstallError::Misfit(why) if why.contains("later")), "{error}");
}

#[tokio::test]
async fn what_the_pool_cannot_hold_does_not_fit() {
    let rig = Rig::new().await;
    let error = refused(&rig, step("(table 30000 funcref)", "unreachable")).await;
    assert!(matches!(error, InstallError::Misfit(_)), "{error}");
}

#[tokio::test]
async fn what_describes_itself_badly_is_refused() {
    let rig = Rig::new().await;
    let traps = refused(&rig, dummy(STEP_WIT, &[])).await;
    assert!(matches!(traps, InstallError::Describe(_)), "{traps}");
    let no_json = refused(&rig, step_with_schema("", "unreachable", "{not json")).await;
    assert!(matches!(&no_json, InstallError::Manifest(m) if m[0].contains("input schema")), "{no_json}");
}

#[tokio::test]
async fn a_component_that_does_not_validate_is_the_plugins_fault_and_not_the_hosts() {
    let rig = Rig::new().await;
    // A step whose run returns an f32 instead of an i32: a component to look at, and no valid one.
    let mut wasm = step("", "(i32.const 1234567)");
    let i32_const = [0x41, 0x87, 0xad, 0xcb, 0x00];
    let at = wasm.windows(i32_const.len()).position(|bytes| bytes == i32_const).unwrap();
    wasm[at] = 0x43;
    let error = refused(&rig, wasm).await;
    assert!(matches!(error, InstallError::Compile(reipaz_engine::CompileError::Refused(_))), "{error}");
    rig.assert_sound().await;
}

#[tokio::test]
async fn a_compiler_that_cannot_start_is_told_apart() {
    let cache = tempfile::tempdir().unwrap();
    let mut config = config(cache.path());
    config.compiler.argv = vec!["/no/such/program".into()];
    let engine = Engine::new(config).unwrap();
    let error = engine.install(step("", "unreachable").into()).await.unwrap_err();
    assert!(matches!(error, InstallError::Compile(reipaz_engine::CompileError::Child { .. })), "{error}");
}

#[tokio::test]
async fn compiled_code_is_found_again_and_a_damaged_file_compiled_anew() {
    // Given a plugin that was compiled.
    let cache = tempfile::tempdir().unwrap();
    let wasm = step("", "unreachable");
    let engine = Engine::new(config(cache.path())).unwrap();
    let digest = engine.install(wasm.clone().into()).await.unwrap().digest;
    assert_eq!(engine.stats().compilations, 1);
    // When another engine starts there, it needs neither compiler nor binary.
    let engine = Engine::new(config(cache.path())).unwrap();
    engine.load(digest, || panic!("the binary is not needed")).await.unwrap();
    assert_eq!((engine.stats().compilations, engine.stats().plugins), (0, 1));
    // And when the file is damaged, it is compiled anew.
    let file = std::fs::read_dir(cache.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "cwasm"))
        .unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, bytes).unwrap();
    let engine = Engine::new(config(cache.path())).unwrap();
    engine.load(digest, move || Ok(wasm.into())).await.unwrap();
    assert_eq!(engine.stats().compilations, 1);
}

#[tokio::test]
async fn a_binary_that_is_not_the_installed_one_is_not_loaded() {
    let cache = tempfile::tempdir().unwrap();
    let engine = Engine::new(config(cache.path())).unwrap();
    let error = engine.load([3; 32], || Ok(rig::hostile_guest().into())).await.unwrap_err();
    assert!(matches!(error, reipaz_engine::LoadError::OtherBinary { .. }), "{error}");
    let error = engine.load([3; 32], || Err(std::io::ErrorKind::NotFound.into())).await.unwrap_err();
    assert!(matches!(error, reipaz_engine::LoadError::Source(_)), "{error}");
}
