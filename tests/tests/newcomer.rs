//! The README's way from nothing to a step's output in ClickHouse, typed as it stands there.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use reipaz_tests::{
    cli::Cli,
    host::{binary, free_address, repository},
    wait,
};

/// The heading above the commands.
const HEADING: &str = "## From a new step to its output in ClickHouse";
/// What the issue that this project came from allows.
const COMMANDS_MAX: usize = 5;

/// The commands of the first shell block below [`HEADING`].
fn commands(readme: &str) -> Vec<String> {
    let below = readme.split_once(HEADING).expect("the README has the heading").1;
    let block = below.split("```").nth(1).expect("a block of commands");
    let lines = block.lines().skip(1).map(|line| line.split(" # ").next().unwrap_or(line).trim());
    lines.filter(|line| !line.is_empty()).map(ToOwned::to_owned).collect()
}

/// A command that stays in the background until the test is over.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(folder: &Path, command: &str, environment: &[(&str, String)]) -> Background {
    let log = fs::File::create(folder.join("host.log")).expect("a log");
    let child = Command::new("sh")
        .args(["-ec", &format!("exec {command}")])
        .current_dir(folder)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("it starts");
    Background(child)
}

#[tokio::test(flavor = "multi_thread")]
async fn five_commands_lead_from_a_new_step_to_its_output_in_clickhouse() {
    // Given a folder, `reipaz` on the path, and a port that no other test has.
    let folder = tempfile::tempdir().expect("a folder");
    let programs = folder.path().join("bin");
    fs::create_dir(&programs).expect("created");
    std::os::unix::fs::symlink(binary(), programs.join("reipaz")).expect("linked");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let address = free_address();
    let target = repository().join("target/guests");
    let environment = [
        ("PATH", path),
        ("REIPAZ_LISTEN", address.to_string()),
        ("REIPAZ_URL", format!("http://{address}")),
        // The SDK is built there already.
        ("CARGO_TARGET_DIR", std::env::var("CARGO_TARGET_DIR").unwrap_or(target.display().to_string())),
    ];
    let readme = fs::read_to_string(repository().join("README.md")).expect("a README");
    let commands = commands(&readme);
    assert!(commands.len() <= COMMANDS_MAX, "{commands:#?}");

    // When they are typed one after another.
    let mut background = Vec::new();
    let shell =
        environment.iter().fold(Cli::new(folder.path()), |shell, (name, value)| shell.with_env(name, value));
    let (last, first) = commands.split_last().expect("commands");
    for command in first {
        println!("$ {command}");
        if let Some(command) = command.strip_suffix('&') {
            background.push(start(folder.path(), command.trim(), &environment));
        } else {
            let output = shell.run_program("sh", &["-ec", command], "").await.success();
            println!("{}{}", output.stdout, output.stderr);
        }
    }

    // Then the last one, once the row has come, shows what the step gave.
    println!("$ {last}");
    let shown = wait::until("the output in ClickHouse", Duration::from_secs(60), || async {
        let output = shell.run_program("sh", &["-ec", last], "").await;
        (output.status.success() && output.stdout.contains("greeting")).then_some(output.stdout)
    })
    .await;
    println!("{shown}");
    assert!(shown.contains("Ana"), "{shown}");
}

#[tokio::test]
async fn a_new_step_passes_its_own_test_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = repository().join("target/guests");
    let cli = Cli::new(folder.path()).with_env("CARGO_TARGET_DIR", target.to_str().expect("UTF-8"));
    cli.run(&["new", "step", "greet"]).await.success();
    let manifest = folder.path().join("greet/Cargo.toml");
    let arguments = ["test", "--quiet", "--manifest-path", manifest.to_str().expect("UTF-8")];
    let tested = cli.run_program("cargo", &arguments, "").await.success();
    assert!(tested.stdout.contains("test result: ok"), "{}", tested.stdout);
}
