//! A real Apache Kafka for the tests and for trying things out: one broker, obtained once, in a temporary folder, on free
//! ports of loopback, gone when it is dropped.
//!
//! Kafka's own archive is not in any package registry, but everything in it is published for Maven; so Maven fetches it,
//! with the versions of everything else that Kafka itself asks for. That takes a JDK (17 or later), which running it
//! takes anyway.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::RecvTimeoutError,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::{chdb, secured, shell};

/// Kafka's version, and that of the logging that it is made for.
const VERSION: &str = "4.1.0";
const SCALA: &str = "2.13";
const LOG4J: &str = "2.24.3";

/// An existing broker, for whoever has one; and how the tests learn of ours.
pub(crate) const BROKER_VARIABLE: &str = "REIPAZ_TEST_KAFKA";

/// A broker that does not answer by then is taken for broken.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// A broker that takes longer to stop is killed.
const STOPPED_WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between two lines of progress.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// Java's memory for one broker with some thousand small partitions.
const HEAP: &str = "-Xmx512m";

/// `cargo xtask kafka`: a broker in the foreground, until somebody ends it. Each line of input kills it, as a crash would,
/// and starts it again on its data. With `--secured` it has a second listener, with TLS and SASL.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let is_secured = match arguments {
        [] => false,
        [one] if one == "--secured" => true,
        _ => bail!("`cargo xtask kafka` takes --secured, and nothing else"),
    };
    let mut broker = Broker::start_with(is_secured)?;
    println!(
        "Kafka {VERSION} answers at {}. For tests: {BROKER_VARIABLE}={}",
        broker.address, broker.address
    );
    if let Some(address) = &broker.secured {
        let (user, password) = (secured::USER, secured::PASSWORD);
        let certificate = broker.folder.join(secured::CERTIFICATE);
        println!(
            "With TLS and SASL (user {user}, password {password}, authority {}):",
            certificate.display()
        );
        println!("REIPAZ_TEST_KAFKA_SECURED={address}");
    }
    println!("Its data and log: {}. Ctrl-C ends it and removes them.", broker.folder.display());
    println!("Enter kills it and starts it again on its data.");
    let (lines, asked) = std::sync::mpsc::channel();
    // Ends with the input, or with the process.
    thread::spawn(move || std::io::stdin().lines().map_while(Result::ok).try_for_each(|_| lines.send(())));
    loop {
        if let Some(status) = broker.child.try_wait()? {
            bail!("the broker ended with {status}:\n{}", broker.log_tail());
        }
        match asked.recv_timeout(LOOK_EVERY) {
            Ok(()) => broker.crash_and_restart()?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => thread::sleep(LOOK_EVERY),
        }
    }
}

/// What tests and the bench are to use: an existing broker, or one that lives as long as this.
pub(crate) enum ForTests {
    Existing(String),
    Ours(Broker),
}

impl ForTests {
    pub(crate) fn obtain() -> Result<Self> {
        match std::env::var(BROKER_VARIABLE) {
            Ok(address) if !address.is_empty() => {
                println!("  using the broker at {address} ({BROKER_VARIABLE})");
                Ok(Self::Existing(address))
            }
            _ => Broker::start().map(Self::Ours).context("Kafka could not be started"),
        }
    }

    pub(crate) fn address(&self) -> &str {
        match self {
            Self::Existing(address) => address,
            Self::Ours(broker) => &broker.address,
        }
    }
}

/// Makes sure that Kafka is on this machine; gives the folder with its jars.
pub(crate) fn ensure() -> Result<PathBuf> {
    need(
        "java",
        "Kafka is a Java program: install a JDK, 17 or later (on Debian: apt-get install default-jre-headless)",
    )?;
    let folder = chdb::cache().context("neither HOME nor REIPAZ_CACHE_DIR says where files may be kept")?;
    let folder = folder.join("kafka").join(VERSION);
    if folder.join("complete").exists() {
        return Ok(folder);
    }
    need(
        "mvn",
        "Kafka is fetched by Maven, once: install it (on Debian: apt-get install maven), or name an existing broker \
         in REIPAZ_TEST_KAFKA=HOST:PORT",
    )?;
    let scratch = folder.with_file_name(format!("{VERSION}-fetching-{}", std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    let fetched = fetch(&scratch);
    if let Err(error) = fetched {
        // What is left of a failed fetch is of no use to anybody.
        let _ = fs::remove_dir_all(&scratch);
        return Err(error);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::rename(&scratch, &folder).with_context(|| format!("cannot create {}", folder.display()))?;
    println!("  {}", folder.display());
    Ok(folder)
}

fn need(program: &str, why: &str) -> Result<()> {
    if !shell::exists(program) {
        bail!("`{program}` is not on this machine. {why}.");
    }
    Ok(())
}

/// Has Maven copy Kafka and all that it needs into `folder`.
fn fetch(folder: &Path) -> Result<()> {
    println!("Fetching Apache Kafka {VERSION} with Maven (about 54 MB), once:");
    let project = folder.join("project");
    fs::create_dir_all(&project)?;
    fs::write(project.join("pom.xml"), pom())?;
    let errors = folder.join("maven.log");
    let mut maven = shell::command("mvn");
    maven.args(["--batch-mode", "--no-transfer-progress", "dependency:copy-dependencies"]);
    maven.arg(format!("-DoutputDirectory={}", folder.display())).arg("-DincludeScope=runtime");
    maven.current_dir(&project).stdout(File::create(&errors)?).stderr(Stdio::null());
    let mut child = maven.spawn().context("cannot start mvn")?;
    let (begin, mut said) = (Instant::now(), Instant::now());
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if said.elapsed() > SAY_EVERY {
            println!("  {} files after {}", jars(folder)?.len(), shell::seconds(begin.elapsed()));
            said = Instant::now();
        }
        thread::sleep(LOOK_EVERY);
    };
    if !status.success() {
        bail!("mvn could not fetch Kafka: is the package registry reachable?\n{}", tail(&errors));
    }
    let jars = jars(folder)?;
    if !jars.iter().any(|jar| jar.ends_with(format!("kafka_{SCALA}-{VERSION}.jar"))) {
        bail!("mvn copied {} files, but not Kafka itself:\n{}", jars.len(), tail(&errors));
    }
    fs::remove_dir_all(&project)?;
    fs::remove_file(&errors)?;
    println!("  {} files in {}", jars.len(), shell::seconds(begin.elapsed()));
    // Comes last: with it, everything is there.
    fs::write(folder.join("complete"), VERSION)?;
    Ok(())
}

fn jars(folder: &Path) -> Result<Vec<PathBuf>> {
    let files = folder.read_dir()?.collect::<Result<Vec<_>, _>>()?;
    let jars = files.into_iter().map(|file| file.path());
    Ok(jars.filter(|path| path.extension().is_some_and(|extension| extension == "jar")).collect())
}

fn pom() -> String {
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "    <dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>\n"
        )
    };
    let dependencies = [
        dependency("org.apache.kafka", &format!("kafka_{SCALA}"), VERSION),
        dependency("org.apache.kafka", "kafka-tools", VERSION),
        dependency("org.apache.logging.log4j", "log4j-core", LOG4J),
        dependency("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J),
    ];
    format!(
        "<project>\n  <modelVersion>4.0.0</modelVersion>\n  <groupId>reipaz</groupId>\n  \
         <artifactId>kafka</artifactId>\n  <version>1</version>\n  <dependencies>\n{}  </dependencies>\n</project>\n",
        dependencies.concat()
    )
}

/// Waits until we are gone, however that happened, and then does what dropping would have done. Its input is a pipe from
/// us, which the system closes with us; Ctrl-C reaches everybody in the terminal, so it is deaf to that.
const GUARD: &str = r#"trap '' INT TERM HUP
read -r nothing
kill -TERM "$1"
for look in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
    kill -0 "$1" || break
    sleep 1
done
kill -KILL "$1"
rm -rf "$2""#;

/// A running broker. Dropping it stops it and removes its data; so does the end of this process.
pub(crate) struct Broker {
    child: Child,
    guard: Child,
    folder: PathBuf,
    /// Where it listens, `127.0.0.1:PORT`.
    pub(crate) address: String,
    /// The same with TLS and SASL.
    secured: Option<String>,
}

impl Broker {
    /// Starts a broker and waits until it answers.
    pub(crate) fn start() -> Result<Self> {
        Self::start_with(false)
    }

    fn start_with(is_secured: bool) -> Result<Self> {
        let jars = ensure()?;
        let folder = std::env::temp_dir().join(format!("reipaz-kafka-{}", std::process::id()));
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let begin = Instant::now();
        let [broker, controller, third] = free_addresses()?;
        let secured = is_secured.then_some(third);
        if is_secured {
            secured::make_certificate(&folder)?;
        }
        fs::write(folder.join("server.properties"), properties(&folder, broker, controller, secured))?;
        fs::write(folder.join("log4j2.properties"), LOGGING)?;
        let mut format = java(&jars, &folder);
        format.args(["kafka.tools.StorageTool", "format", "--standalone"]);
        format.args(["--cluster-id", &cluster_id(&folder), "--config"]).arg(folder.join("server.properties"));
        if is_secured {
            format.args(secured::format_arguments());
        }
        shell::run_quietly(&mut format).context("cannot prepare Kafka's data folder")?;
        let (child, guard) = serve(&jars, &folder)?;
        let (address, secured) = (broker.to_string(), secured.map(|address| address.to_string()));
        let mut started = Self { child, guard, folder, address, secured };
        started.wait_until_ready()?;
        println!("  Kafka {VERSION} answers at {broker} after {}", shell::seconds(begin.elapsed()));
        Ok(started)
    }

    /// What a crash of the broker's process is to its clients.
    fn crash_and_restart(&mut self) -> Result<()> {
        self.guard.kill()?;
        self.guard.wait()?;
        self.child.kill()?;
        self.child.wait()?;
        let begin = Instant::now();
        (self.child, self.guard) = serve(&ensure()?, &self.folder)?;
        self.wait_until_ready()?;
        println!("  Kafka {VERSION} answers again after {}", shell::seconds(begin.elapsed()));
        Ok(())
    }

    /// One of Kafka's own tools, with this broker's address.
    pub(crate) fn tool(&self, class: &str) -> Result<Command> {
        let mut tool = java(&ensure()?, &self.folder);
        tool.args([class, "--bootstrap-server", &self.address]);
        Ok(tool)
    }

    /// It says so once it has registered and opened its port to clients.
    fn wait_until_ready(&mut self) -> Result<()> {
        let begin = Instant::now();
        while !self.log().contains("Kafka Server started") {
            if let Some(status) = self.child.try_wait()? {
                bail!("the broker ended with {status} instead of starting:\n{}", self.log_tail());
            }
            if begin.elapsed() > READY_WITHIN {
                let within = shell::seconds(READY_WITHIN);
                bail!("the broker did not answer within {within}:\n{}", self.log_tail());
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("broker.log")).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        tail(&self.folder.join("broker.log"))
    }

    fn stop(&mut self) -> Result<()> {
        shell::run_quietly(shell::command("kill").args(["-TERM", &self.child.id().to_string()]))?;
        let begin = Instant::now();
        while begin.elapsed() < STOPPED_WITHIN {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(LOOK_EVERY);
        }
        bail!("it did not stop within {}", shell::seconds(STOPPED_WITHIN))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // First, so that it never looks for a process that is gone.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        if self.stop().is_err() {
            // Already gone is as good.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Starts the broker's process and its guard.
fn serve(jars: &Path, folder: &Path) -> Result<(Child, Child)> {
    let log = folder.join("broker.log");
    let mut child = java(jars, folder)
        .args(["kafka.Kafka"])
        .arg(folder.join("server.properties"))
        .stdin(Stdio::null())
        .stdout(File::create(&log)?)
        .stderr(File::options().append(true).open(&log)?)
        .spawn()
        .context("cannot start java")?;
    match guard(&child, folder) {
        Ok(guard) => Ok((child, guard)),
        Err(error) => {
            child.kill()?;
            Err(error)
        }
    }
}

fn guard(broker: &Child, folder: &Path) -> Result<Child> {
    let mut guard = shell::command("sh");
    guard.args(["-c", GUARD, "kafka-guard", &broker.id().to_string()]).arg(folder);
    guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    guard.spawn().context("cannot start sh")
}

/// Java with Kafka's classes. It begins quickly and stays small rather than becoming fast.
fn java(jars: &Path, folder: &Path) -> Command {
    let mut java = shell::command("java");
    java.args(["-Xms64m", HEAP, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    java.arg(format!("-Dlog4j2.configurationFile={}", folder.join("log4j2.properties").display()));
    java.arg("-cp").arg(jars.join("*"));
    java
}

/// One process is broker and controller; whatever has replicas has one.
fn properties(
    folder: &Path,
    broker: SocketAddr,
    controller: SocketAddr,
    secured: Option<SocketAddr>,
) -> String {
    let more = secured.map(|address| format!(",SECURED://{address}")).unwrap_or_default();
    let settings = secured.map(|_| secured::properties(folder)).unwrap_or_default();
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={controller}
listeners=PLAINTEXT://{broker},CONTROLLER://{controller}{more}
advertised.listeners=PLAINTEXT://{broker}{more}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SECURED:SASL_SSL,CONTROLLER:PLAINTEXT
log.dirs={}
auto.create.topics.enable=true
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.segment.bytes=67108864
log.index.size.max.bytes=262144
{settings}",
        folder.join("data").display()
    )
}

const LOGGING: &str = "\
rootLogger.level=INFO
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{HH:mm:ss.SSS} %p %c{1} %m%n
";

/// Kafka names a cluster by 16 bytes in URL-safe Base64; any will do.
fn cluster_id(folder: &Path) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let random = Sha256::digest(folder.to_string_lossy().as_bytes());
    let digits = random.iter().take(20).map(|byte| char::from(DIGITS[usize::from(byte % 64)]));
    // Begins with a letter, or it would be taken for an option; the last digit holds two bits of the 128.
    ['R'].into_iter().chain(digits).chain(['A']).collect()
}

/// Addresses on loopback that nobody listened on a moment ago.
fn free_addresses() -> Result<[SocketAddr; 3]> {
    let listen = || TcpListener::bind(("127.0.0.1", 0)).context("cannot open a port on 127.0.0.1");
    let (one, two, three) = (listen()?, listen()?, listen()?);
    Ok([one.local_addr()?, two.local_addr()?, three.local_addr()?])
}

/// The last lines of a text file.
fn tail(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_named_as_kafka_wants_it() {
        let id = cluster_id(Path::new("/tmp/x"));
        assert_eq!(id.len(), 22);
        assert!(id.starts_with('R') && id.ends_with('A'), "{id}");
    }
}
