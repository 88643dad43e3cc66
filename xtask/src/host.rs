//! A host of our own for as long as a command needs it: a free port, a fresh data directory, its log in a file.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::shell;

/// A host that takes longer than this to be ready is taken for broken.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// A host that takes longer than this to stop is killed.
const STOPPED_WITHIN: Duration = Duration::from_secs(20);
/// How often a starting or stopping host is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A running host. Dropping it kills it.
pub(crate) struct Host {
    child: Child,
    binary: PathBuf,
    log: PathBuf,
    /// Where its API listens.
    pub(crate) url: String,
}

impl Host {
    /// Starts `binary` on an emptied `data_dir` with `config` (TOML) and waits until it takes work.
    pub(crate) fn start(binary: &Path, data_dir: &Path, library: &Path, config: &str) -> Result<Self> {
        if data_dir.exists() {
            fs::remove_dir_all(data_dir).with_context(|| format!("cannot empty {}", data_dir.display()))?;
        }
        fs::create_dir_all(data_dir)?;
        let log = data_dir.join("host.log");
        let config_file = data_dir.join("reipaz.toml");
        fs::write(&config_file, config)?;
        let address = free_address()?;
        let child = shell::command(binary)
            .args(["serve", "--listen", &address.to_string(), "--data-dir"])
            .arg(data_dir)
            .arg("--config")
            .arg(&config_file)
            .env("REIPAZ_CHDB", library)
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let mut host = Self { child, binary: binary.to_owned(), log, url: format!("http://{address}") };
        host.wait_until_ready(address)?;
        Ok(host)
    }

    fn wait_until_ready(&mut self, address: SocketAddr) -> Result<()> {
        let begin = Instant::now();
        while !is_ready(address) {
            if let Some(status) = self.child.try_wait()? {
                bail!("the host ended with {status} instead of starting:\n{}", self.log_tail());
            }
            if begin.elapsed() > READY_WITHIN {
                bail!("the host was not ready within {}:\n{}", shell::seconds(READY_WITHIN), self.log_tail());
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// A `reipaz` command that talks to this host.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = shell::command(&self.binary);
        command.args(arguments).env("REIPAZ_URL", &self.url);
        command
    }

    /// Stops it as an operator would, and waits for its end.
    pub(crate) fn stop(mut self) -> Result<()> {
        shell::run_quietly(shell::command("kill").args(["-TERM", &self.child.id().to_string()]))?;
        let begin = Instant::now();
        while begin.elapsed() < STOPPED_WITHIN {
            if let Some(status) = self.child.try_wait()? {
                anyhow::ensure!(status.success(), "the host ended with {status}:\n{}", self.log_tail());
                return Ok(());
            }
            thread::sleep(LOOK_EVERY);
        }
        bail!("the host did not stop within {}:\n{}", shell::seconds(STOPPED_WITHIN), self.log_tail())
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address on loopback that nobody listened on a moment ago.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot open a port on 127.0.0.1")?;
    Ok(listener.local_addr()?)
}

fn is_ready(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}
