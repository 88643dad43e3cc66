//! `cargo xtask demo --kafka`: the same workflow on a real Kafka and two hosts. One is asked, the other may do the work; any
//! program submits a run; one host leaves, and the work goes on.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use crate::{
    dataset,
    demo::{STEP, WORKFLOW, build_host, title},
    files,
    host::Host,
    kafka::Broker,
    setup,
    shell::{self, seconds},
};

/// What clients of the demo's ClickHouse say. It listens on loopback and lives as long as the demo.
const PASSWORD: &str = "demo";

/// See the module.
pub(crate) fn run() -> Result<()> {
    setup::target()?;
    let library = setup::clickhouse()?;
    let data = dataset::ensure()?;
    let binary = build_host()?;

    let begin = Instant::now();
    title("A broker, a ClickHouse, and two hosts");
    let broker = Broker::start()?;
    let folder = shell::root().join(".reipaz/demo-kafka");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let engine = Engine::start(&binary, &library, &folder.join("clickhouse"))?;
    let address = files::serve(&data)?;
    let config = format!(
        "partitions = 4
plugin_store = \"file://{}\"
[kafka]
brokers = \"{}\"
[clickhouse]
mode = \"external\"
url = \"{}\"
user = \"reipaz\"
password = \"{PASSWORD}\"
[plugins.http_request.grants]
http = [\"GET {address}\"]
",
        folder.join("plugins").display(),
        broker.address,
        engine.url,
    );
    let first = Host::start(&binary, &folder.join("host-1"), &library, &config)?;
    let second = Host::start(&binary, &folder.join("host-2"), &library, &config)?;
    println!("  the hosts answer at {} and {}", first.url, second.url);

    title("Install a step on the first host, run the workflow on the second");
    shell::run_quietly(&mut first.cli(&["plugin", "install", STEP]))?;
    let input = format!(r#"{{"url":"http://{address}/{}"}}"#, dataset::FILE);
    let run = shell::output(&mut second.cli(&["run", WORKFLOW, "--input", &input]))?;
    println!("  {}", ended(&run));

    title("Any program submits a run: here Kafka's own console producer");
    let task = format!(r#"{{"reipaz":1,"workflow":"weather","input":{input}}}"#);
    println!("  {task}");
    let mut producer = broker.tool("org.apache.kafka.tools.ConsoleProducer")?;
    write(producer.args(["--topic", "reipaz.tasks"]), &task)?;
    let mut consumer = broker.tool("org.apache.kafka.tools.consumer.ConsoleConsumer")?;
    consumer.args(["--topic", "reipaz.results", "--from-beginning", "--max-messages", "2"]);
    consumer.args(["--timeout-ms", "20000", "--isolation-level", "read_committed"]);
    for result in shell::output(&mut consumer)?.lines().filter(|line| line.starts_with('{')) {
        println!("  {}", ended(result));
    }

    title("The first host leaves; the second goes on with everything");
    first.stop()?;
    let run = shell::output(&mut second.cli(&["run", WORKFLOW, "--input", &input]))?;
    println!("  {}", ended(&run));
    let query = "SELECT workflow, status, count() AS runs FROM runs GROUP BY ALL";
    let counted = wait_for(|| {
        let rows = shell::output(&mut second.cli(&["sql", query, "--format", "PrettyCompactMonoBlock"]))?;
        Ok(rows.contains("3 │").then_some(rows))
    })?;
    println!("{counted}");
    second.stop()?;
    println!("That took {}, with starting and stopping.", seconds(begin.elapsed()));
    println!("\ndocs/deploying.md tells how to set this up for good.");
    Ok(())
}

/// The beginning of a run's JSON, or of its result's.
fn ended(json: &str) -> String {
    let json = json.trim();
    let status = ["completed", "failed", "cancelled"]
        .into_iter()
        .find(|status| json.contains(&format!("\"status\":\"{status}\"")));
    let head: String = json.chars().take(150).collect();
    format!("{}: {head}...", status.unwrap_or("not ended"))
}

fn wait_for<T>(mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(begin.elapsed().as_secs() < 30, "the rows did not come within 30 s");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

fn write(command: &mut Command, line: &str) -> Result<()> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context("cannot start java")?;
    writeln!(child.stdin.take().context("no pipe")?, "{line}")?;
    let status = child.wait()?;
    ensure!(status.success(), "the producer ended with {status}");
    Ok(())
}

/// The embedded ClickHouse as a server of its own: what a deployment has a real one for.
struct Engine {
    child: Child,
    url: String,
}

impl Engine {
    fn start(binary: &Path, library: &PathBuf, folder: &Path) -> Result<Self> {
        let mut child = shell::command(binary)
            .arg("internal-clickhouse")
            .arg("--library")
            .arg(library)
            .arg("--dir")
            .arg(folder)
            .env("REIPAZ_CLICKHOUSE_TOKEN", PASSWORD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no pipe")?).read_line(&mut line)?;
        let port: String = line
            .split("\"port\":")
            .nth(1)
            .unwrap_or_default()
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        ensure!(!port.is_empty(), "ClickHouse does not serve: {line}");
        Ok(Self { child, url: format!("http://127.0.0.1:{port}") })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
