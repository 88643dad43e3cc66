//! The host under load: a child process on an emptied data directory.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use hyper::Method;

use crate::{client::Client, options::Options, workloads::Workload};

/// A host that takes longer than this to be ready is taken for broken; it compiles its standard plugins first.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long it is left alone before its idle memory is read.
const SETTLES_IN: Duration = Duration::from_secs(3);
/// What the host calls the number of its fsyncs.
const FSYNCS: &str = "reipaz_journal_fsyncs_total";

/// A running host. Dropping it kills it.
pub(crate) struct Host {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
    clickhouse: bool,
}

impl Host {
    /// Starts it with the standard HTTP step granted to call `upstream`.
    pub(crate) async fn start(options: &Options, upstream: SocketAddr) -> Result<Self> {
        let data_dir = options.data_dir.join("data");
        if data_dir.exists() {
            fs::remove_dir_all(&data_dir).context("cannot empty the data directory")?;
        }
        fs::create_dir_all(&data_dir)?;
        let config = options.data_dir.join("reipaz.toml");
        let clickhouse = if options.clickhouse { "embedded" } else { "off" };
        let toml = format!(
            "[clickhouse]\nmode = \"{clickhouse}\"\n[plugins.http_request.grants]\nhttp = [\"POST {upstream}\"]\n"
        );
        fs::write(&config, toml)?;
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let log = options.data_dir.join("host.log");
        let output = File::create(&log)?;
        let child = Command::new(&options.host)
            .args(["serve", "--listen", &address.to_string(), "--data-dir"])
            .arg(&data_dir)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", options.host.display()))?;
        let mut host = Self { child, address, log, clickhouse: options.clickhouse };
        host.wait_until("ready", |ready| ready["ready"] == true).await?;
        Ok(host)
    }

    /// Waits until ClickHouse is up, if there is to be one, and the start's work is over.
    pub(crate) async fn settled(&mut self) -> Result<()> {
        if self.clickhouse {
            self.wait_until("joined by ClickHouse", |ready| ready["parts"]["clickhouse"] == "ready").await?;
        }
        tokio::time::sleep(SETTLES_IN).await;
        Ok(())
    }

    async fn wait_until(&mut self, what: &str, reached: impl Fn(&serde_json::Value) -> bool) -> Result<()> {
        let begin = Instant::now();
        loop {
            if let Ok(mut client) = Client::connect(self.address).await
                && let Ok(answer) = client.json("/readyz").await
                && reached(&answer)
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the host ended with {status}; see {}", self.log.display());
            }
            ensure!(
                begin.elapsed() < READY_WITHIN,
                "the host was not {what} within {READY_WITHIN:?}; see {}",
                self.log.display()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn publish(&self, workload: Workload) -> Result<()> {
        let mut client = Client::connect(self.address).await?;
        let body = Bytes::from_static(workload.document().as_bytes());
        let headers = [("content-type", "application/yaml")];
        let (status, answer) = client.send(Method::POST, "/v1/workflows", &headers, body).await?;
        ensure!(
            status.is_success(),
            "publishing was answered {status}: {}",
            String::from_utf8_lossy(&answer)
        );
        Ok(())
    }

    /// How many fsyncs the journal has done; none if the host does not tell.
    pub(crate) async fn fsyncs(&self, client: &mut Client) -> Result<Option<f64>> {
        let metrics = client.text("/metrics").await?;
        let values: Vec<f64> = metrics
            .lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(FSYNCS))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
            .collect();
        Ok((!values.is_empty()).then(|| values.iter().sum()))
    }

    /// Memory that the process has now.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most that it ever had.
    pub(crate) fn peak_bytes(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no memory in /proc")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
    }

    /// Stops it in good order.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        ensure!(asked.success(), "the host could not be asked to stop");
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(60) {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the host ended with {status}; see {}", self.log.display());
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the host did not stop; see {}", self.log.display())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
