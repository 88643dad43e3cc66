//! A host as a child process: started, waited for, killed, started again on the same data.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{cli::Cli, client::Client, wait};

/// How long it may take to answer a question before it is asked again.
const ASKED_WITHIN: Duration = Duration::from_secs(2);
/// A host that is not ready after this is broken.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A host that has not stopped after this is stuck.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);
/// How much of a host's log a failing test shows, bytes.
const SHOWN_LOG_BYTES: usize = 16 * 1024;
/// Ports below the range that the kernel hands out by itself, so that nobody else gets one between two starts.
const PORTS: std::ops::Range<u16> = 17_000..31_000;

/// The `reipaz` binary under test.
pub fn binary() -> PathBuf {
    let found = std::env::var_os("REIPAZ_BIN").map_or_else(
        || {
            // target/<profile>/deps/<this test>
            let here = std::env::current_exe().expect("a test has a path");
            here.ancestors().nth(2).expect("target/<profile>").join("reipaz")
        },
        PathBuf::from,
    );
    assert!(
        found.exists(),
        "there is no reipaz binary at {}: build it with `cargo build -p reipaz --features fault_points`, or run \
         `cargo xtask test`",
        found.display()
    );
    found
}

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie inside the repository")
}

/// Which ClickHouse a host has.
#[derive(Clone, Debug)]
enum ClickHouse {
    Off,
    Embedded,
    External { url: String, password: String },
}

/// What a host is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    config: String,
    environment: Vec<(String, String)>,
    clickhouse: ClickHouse,
    wrapper: Vec<String>,
    in_memory: bool,
}

impl Settings {
    /// A host without ClickHouse, whose standard steps may call servers on loopback.
    pub fn new() -> Self {
        Self {
            config: String::new(),
            environment: Vec::new(),
            clickhouse: ClickHouse::Off,
            wrapper: Vec::new(),
            in_memory: false,
        }
    }

    /// With the embedded ClickHouse.
    pub fn with_clickhouse(mut self) -> Self {
        self.clickhouse = ClickHouse::Embedded;
        self
    }

    /// With a ClickHouse that runs by itself.
    pub fn with_external_clickhouse(mut self, url: &str, password: &str) -> Self {
        self.clickhouse = ClickHouse::External { url: url.to_owned(), password: password.to_owned() };
        self
    }

    /// With further configuration (TOML); top-level keys may not follow a table.
    pub fn with_config(mut self, toml: &str) -> Self {
        self.config.push_str(toml);
        self.config.push('\n');
        self
    }

    /// With an environment variable.
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Started through another program, whose arguments the host's command line follows.
    pub fn through(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// With its data in memory, where that can be: then no disk has a share in what is measured.
    pub fn in_memory(mut self) -> Self {
        self.in_memory = true;
        self
    }

    fn toml(&self) -> String {
        let clickhouse = match &self.clickhouse {
            ClickHouse::Embedded => String::new(),
            ClickHouse::Off => "[clickhouse]\nmode = \"off\"\n".to_owned(),
            ClickHouse::External { url, password } => format!(
                "[clickhouse]\nmode = \"external\"\nurl = \"{url}\"\nuser = \"reipaz\"\npassword = \"{password}\"\n"
            ),
        };
        let grants = "[plugins.http_request.grants]\nhttp = [\"* 127.0.0.1:*\"]\n";
        format!("{}{clickhouse}{grants}", self.config)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new()
    }
}

/// A host. Dropping it kills it, and shows its log if the test failed.
#[derive(Debug)]
pub struct Host {
    settings: Settings,
    folder: TempDir,
    address: SocketAddr,
    child: Option<Child>,
    client: Client,
}

impl Host {
    /// A running host with [`Settings::new`].
    pub async fn plain() -> Self {
        Self::start(Settings::new()).await
    }

    /// A running host on a fresh data directory.
    pub async fn start(settings: Settings) -> Self {
        let mut host = Self::prepare(settings);
        host.start_again().await;
        host
    }

    /// A host that was not started yet.
    pub fn prepare(settings: Settings) -> Self {
        let memory = Path::new("/dev/shm");
        let parent = match settings.in_memory && memory.is_dir() {
            true => memory.to_owned(),
            false => std::env::temp_dir(),
        };
        let folder = tempfile::Builder::new().prefix("reipaz-e2e-").tempdir_in(parent);
        let folder = folder.expect("a temporary folder");
        let address = free_address();
        let client = Client::new(&format!("http://{address}"));
        Self { settings, folder, address, child: None, client }
    }

    /// Changes what the next start is done with.
    pub fn change(&mut self, change: impl FnOnce(Settings) -> Settings) {
        self.settings = change(std::mem::take(&mut self.settings));
    }

    /// Starts it, on the data it has, and waits until it takes work.
    pub async fn start_again(&mut self) {
        self.spawn();
        let begin = Instant::now();
        loop {
            if let Some(status) = self.exited() {
                panic!("the host ended with {status} instead of becoming ready");
            }
            // A client's pool may hold on to connections of the host before.
            let asked = self.client.try_send(http::Method::GET, "/readyz", &[], "");
            if let Ok(Ok(answer)) = tokio::time::timeout(ASKED_WITHIN, asked).await
                && answer.status == 200
            {
                return;
            }
            assert!(begin.elapsed() < READY_WITHIN, "the host was not ready within {READY_WITHIN:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts it and does not wait.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the host is running");
        self.share_compiled();
        let child = self.command().spawn().expect("the host starts");
        self.child = Some(child);
    }

    /// Hosts of all tests share what they compile, or each would compile the standard plugins anew.
    fn share_compiled(&self) {
        let shared = binary().with_file_name("e2e-compiled");
        fs::create_dir_all(&shared).expect("a folder beside the binary");
        let own = self.data_dir().join("compiled");
        if !own.exists() {
            fs::create_dir_all(self.data_dir()).expect("the data directory is created");
            std::os::unix::fs::symlink(shared, own).expect("a link");
        }
    }

    /// The command line that starts it, with its output going to the log.
    pub fn command(&self) -> Command {
        let config = self.folder.path().join("reipaz.toml");
        fs::write(&config, self.settings.toml()).expect("the configuration is written");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("the log opens");
        let binary = binary();
        let mut words: Vec<&std::ffi::OsStr> = self.settings.wrapper.iter().map(AsRef::as_ref).collect();
        words.push(binary.as_os_str());
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .arg("serve")
            .args(["--listen", &self.address.to_string()])
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--config")
            .arg(config)
            .envs(self.settings.environment.iter().map(|(name, value)| (name, value)))
            .env("RUST_BACKTRACE", "1")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log opens twice"))
            .stderr(log);
        command
    }

    /// Its HTTP client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where its API is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The command line of the binary, aimed at this host.
    pub fn cli(&self) -> Cli {
        Cli::new(self.folder.path()).with_env("REIPAZ_URL", &self.url())
    }

    /// A folder of the test's own, which goes with the host.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where its durable data lie.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the host is running").id()
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the host is running");
        child.kill().expect("the host can be killed");
        child.wait().expect("the host can be waited for");
    }

    /// SIGSTOP: the process stands still.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT: it goes on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a pid")).expect("a pid is not zero");
        kill_process(pid, signal).expect("the host can be sent a signal");
    }

    /// SIGTERM, as an operator stops it, and waits until it has gone in good order.
    pub async fn stop(&mut self) {
        self.terminate();
        let status = self.ended(STOPPED_WITHIN).await;
        assert!(status.success(), "the host ended with {status}");
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// How the process ended, once it has.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.exited() {
                self.child = None;
                return status;
            }
            assert!(begin.elapsed() < within, "the host still runs after {within:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut().expect("the host is running");
        child.try_wait().expect("the host can be looked at")
    }

    /// What it has written to its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("host.log")
    }

    /// Waits until its ClickHouse answers.
    pub async fn clickhouse_ready(&self) {
        wait::until("ClickHouse", Duration::from_secs(60), || async {
            let parts = self.client.get("/readyz").await.json();
            (parts["parts"]["clickhouse"] == "ready").then_some(())
        })
        .await;
    }

    /// The rows that ClickHouse gives for a query, as JSON objects.
    pub async fn sql(&self, query: &str) -> Vec<Value> {
        let output = self.cli().run(&["sql", query, "--format", "JSONEachRow"]).await;
        assert!(output.status.success(), "{query}: {}", output.stderr);
        let row = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        output.stdout.lines().filter(|line| !line.is_empty()).map(row).collect()
    }

    /// As [`Host::sql`], asked again until `enough` of the rows.
    pub async fn sql_until(
        &self,
        query: &str,
        within: Duration,
        enough: impl Fn(&[Value]) -> bool,
    ) -> Vec<Value> {
        wait::until(query, within, || async {
            let output = self.cli().run(&["sql", query, "--format", "JSONEachRow"]).await;
            let rows: Vec<Value> =
                output.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            (output.status.success() && enough(&rows)).then_some(rows)
        })
        .await
    }

    /// Processor time that the process has used, of all its threads.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the host is running");
        // The name in the second field may hold anything; the fields after its last bracket are plain.
        let fields: Vec<&str> =
            stat.rsplit_once(')').expect("a name in brackets").1.split_whitespace().collect();
        let ticks: u64 = [11, 12].iter().map(|&i| fields[i].parse::<u64>().expect("a number of ticks")).sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }
}

impl Host {
    /// The most memory that the process has had resident, bytes.
    pub fn resident_peak_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the host is running");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        kib << 10
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Already gone is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let from = log.ceil_char_boundary(log.len().saturating_sub(SHOWN_LOG_BYTES));
            eprintln!("--- the host's log\n{}\n---", &log[from..]);
        }
    }
}

/// An address on loopback that is free, and stays so: see [`PORTS`].
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    // Test programs that run side by side begin at different places.
    let offset = (std::process::id() as u16).wrapping_mul(61) % count;
    for _ in 0..count {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from(([127, 0, 0, 1], PORTS.start + (offset + step % count) % count));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port in {PORTS:?}");
}
