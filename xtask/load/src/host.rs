//! A host under load: a child process with a folder of its own, which can be killed and started again on what it has.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use hyper::Method;

use crate::{client::Client, workloads::Workload};

/// A host that takes longer than this to be ready is taken for broken; it compiles its standard plugins first, and may have
/// a long journal to read.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How long it is left alone before its idle memory is read.
const SETTLES_IN: Duration = Duration::from_secs(3);
/// Between two looks at a host that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a host is started with.
pub(crate) struct Settings {
    /// The `reipaz` binary.
    pub(crate) binary: PathBuf,
    /// Where its data, its configuration and its log lie.
    pub(crate) folder: PathBuf,
    /// Where hosts keep the compiled plugins that they share.
    pub(crate) compiled: PathBuf,
    /// Its configuration, TOML.
    pub(crate) config: String,
}

/// A running host. Dropping it kills it.
pub(crate) struct Host {
    settings: Settings,
    child: Child,
    address: SocketAddr,
}

impl Host {
    /// Starts it on an emptied data directory and waits until it is ready.
    pub(crate) async fn start(settings: Settings) -> Result<Self> {
        let data = data(&settings.folder);
        if data.exists() {
            fs::remove_dir_all(&data).with_context(|| format!("cannot empty {}", data.display()))?;
        }
        fs::create_dir_all(&data).with_context(|| format!("cannot create {}", data.display()))?;
        fs::create_dir_all(&settings.compiled)?;
        std::os::unix::fs::symlink(settings.compiled.canonicalize()?, data.join("compiled"))?;
        fs::write(settings.folder.join("reipaz.toml"), &settings.config)?;
        File::create(log(&settings.folder))?;
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let child = spawn(&settings, address)?;
        let mut host = Self { settings, child, address };
        host.wait_until_ready().await?;
        Ok(host)
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("the host cannot be killed")?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it on the data that it left, and does not wait.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        self.child = spawn(&self.settings, self.address)?;
        Ok(())
    }

    pub(crate) async fn wait_until_ready(&mut self) -> Result<()> {
        self.wait_until("ready", |ready| ready["ready"] == true).await
    }

    /// Waits until the start's work is over.
    pub(crate) async fn settled(&self) {
        tokio::time::sleep(SETTLES_IN).await;
    }

    /// Waits until the embedded ClickHouse is up.
    pub(crate) async fn joined_by_clickhouse(&mut self) -> Result<()> {
        self.wait_until("joined by ClickHouse", |ready| ready["parts"]["clickhouse"] == "ready").await
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
            self.look(begin, what)?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until a metric, summed over its labels, has reached `least`; its API may not answer yet.
    pub(crate) async fn wait_for_metric(&mut self, name: &str, least: f64) -> Result<()> {
        let begin = Instant::now();
        loop {
            if let Ok(mut client) = Client::connect(self.address).await
                && let Ok(values) = self.metric(&mut client, name).await
                && values.iter().sum::<f64>() >= least
            {
                return Ok(());
            }
            self.look(begin, &format!("so far that {name} is {least}"))?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Fails when the host has ended, or is waited for since too long.
    fn look(&mut self, begin: Instant, what: &str) -> Result<()> {
        let log = log(&self.settings.folder);
        if let Some(status) = self.child.try_wait()? {
            bail!("the host ended with {status}; see {}", log.display());
        }
        ensure!(
            begin.elapsed() < READY_WITHIN,
            "the host was not {what} within {READY_WITHIN:?}; see {}",
            log.display()
        );
        Ok(())
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

    /// Waits until a workflow that was published on another host is known here.
    pub(crate) async fn knows(&self, workload: Workload) -> Result<()> {
        let mut client = Client::connect(self.address).await?;
        let path = format!("/v1/workflows/{}", workload.name());
        let begin = Instant::now();
        while let Err(error) = client.json(&path).await {
            ensure!(begin.elapsed() < READY_WITHIN, "{error:#}, {READY_WITHIN:?} after it was published");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// A metric's value for each of its labels; none if the host does not tell.
    pub(crate) async fn metric(&self, client: &mut Client, name: &str) -> Result<Vec<f64>> {
        let metrics = client.text("/metrics").await?;
        Ok(metrics
            .lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
            .collect())
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
        let log = log(&self.settings.folder);
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        ensure!(asked.success(), "the host could not be asked to stop");
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(60) {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the host ended with {status}; see {}", log.display());
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the host did not stop; see {}", log.display())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn log(folder: &Path) -> PathBuf {
    folder.join("host.log")
}

fn spawn(settings: &Settings, address: SocketAddr) -> Result<Child> {
    let output = File::options().append(true).open(log(&settings.folder))?;
    Command::new(&settings.binary)
        .args(["serve", "--listen", &address.to_string(), "--data-dir"])
        .arg(data(&settings.folder))
        .arg("--config")
        .arg(settings.folder.join("reipaz.toml"))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("cannot start {}", settings.binary.display()))
}
