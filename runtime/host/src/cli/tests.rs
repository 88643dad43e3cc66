//! The command line as it is parsed.

use clap::{CommandFactory, Parser, error::ErrorKind};

use super::{Cli, Command};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_help_has_an_example_of_its_own_command() {
    fn check(command: &mut clap::Command, words: &str) {
        let help = command.render_long_help().to_string();
        let after = help.split_once("Example").unwrap_or_else(|| panic!("{words} has no example:\n{help}")).1;
        assert!(after.contains(words), "{words}:\n{help}");
        for nested in command.get_subcommands_mut().filter(|nested| nested.get_name() != "help") {
            check(nested, &format!("{words} {}", nested.get_name()));
        }
    }
    let mut command = Cli::command();
    command.build();
    check(&mut command, "reipaz");
}

#[test]
fn a_line_of_each_kind_is_understood() {
    for line in [
        "reipaz serve --data-dir ./data --listen 127.0.0.1:0",
        "reipaz run a.yaml --input {} --set a=1 --set b.c=2 --timeout 10s --url http://127.0.0.1:1",
        "reipaz validate a.yaml b.yaml",
        "reipaz publish a.yaml",
        "reipaz submit orders --input @x.json --key k --wait 5s",
        "reipaz status 00000000-0000-7000-8000-000000000000 --watch",
        "reipaz list --status failed,cancelled --limit 5",
        "reipaz cancel 00000000-0000-7000-8000-000000000000 --reason no",
        "reipaz retry 00000000-0000-7000-8000-000000000000 --step /a",
        "reipaz retry 00000000-0000-7000-8000-000000000000 --from-start --input {}",
        "reipaz bulk retry --workflow orders --error http_503 --rate 5",
        "reipaz logs 00000000-0000-7000-8000-000000000000 --follow",
        "reipaz events 00000000-0000-7000-8000-000000000000",
        "reipaz plugin build",
        "reipaz plugin install x.wasm --grant http=GET",
        "reipaz plugin inspect transform",
        "reipaz new step hello",
        "reipaz alerts --json",
        "reipaz alerts test --url http://127.0.0.1:1",
        "reipaz dev",
        "reipaz doctor --kafka 127.0.0.1:9092 --data-dir ./data --json",
        "reipaz completions zsh",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_wrong_usage() {
    for line in [
        "reipaz publish",
        "reipaz status seven",
        "reipaz run a.yaml --timeout soon",
        "reipaz list --limit 0",
        "reipaz serve --listen nowhere",
        "reipaz plugin install x.wasm --no-grants --grant http=GET",
        "reipaz fly",
    ] {
        let error = parse(line).err().unwrap_or_else(|| panic!("{line} is understood"));
        assert_eq!(error.exit_code(), 2, "{line}");
    }
    assert_eq!(parse("reipaz --version").err().map(|error| error.kind()), Some(ErrorKind::DisplayVersion));
}

#[test]
fn an_input_and_its_changes_come_in_order() {
    let Ok(Cli { command: Command::Submit(args) }) = parse("reipaz submit orders --set n=2 --set n=3 -i {}")
    else {
        panic!("a submission");
    };
    assert!(format!("{args:?}").contains(r#"set: ["n=2", "n=3"]"#), "{args:?}");
}
