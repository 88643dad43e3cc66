//! A second listener for the broker that only lets in whom it knows: TLS with a certificate of its own making, and a name
//! with a password (PLAIN, SCRAM). For tests, and for trying such a configuration out.

use std::{path::Path, process::Command};

use anyhow::{Context, Result};

use crate::shell;

/// Who is known.
pub(crate) const USER: &str = "reipaz";
/// Anybody on this machine may read it here: the broker is for trying out.
pub(crate) const PASSWORD: &str = "for-trying-out";
/// The certificate, for clients, in the broker's folder.
pub(crate) const CERTIFICATE: &str = "ca.pem";

const KEYS: &str = "keys.p12";

/// Makes the certificate for `127.0.0.1`. The tool comes with Java.
pub(crate) fn make_certificate(folder: &Path) -> Result<()> {
    let keytool = |arguments: &[&str]| -> Result<()> {
        let mut command: Command = shell::command("keytool");
        command.args(arguments).args(["-alias", "broker", "-storepass", PASSWORD]);
        command.arg("-keystore").arg(folder.join(KEYS));
        shell::run_quietly(&mut command).context("keytool, which comes with Java, cannot make a certificate")
    };
    let names = "SAN=ip:127.0.0.1,dns:localhost";
    keytool(&[
        "-genkeypair",
        "-keyalg",
        "EC",
        "-dname",
        "CN=reipaz-try-out",
        "-validity",
        "30",
        "-ext",
        names,
    ])?;
    let certificate = folder.join(CERTIFICATE);
    keytool(&["-exportcert", "-rfc", "-file", &certificate.display().to_string()])
}

/// What is added to the broker's properties.
pub(crate) fn properties(folder: &Path) -> String {
    let module = |name: &str| format!("org.apache.kafka.common.security.{name} required");
    let plain = module("plain.PlainLoginModule");
    let scram = module("scram.ScramLoginModule");
    let keys = folder.join(KEYS);
    let keys = keys.display();
    format!(
        "inter.broker.listener.name=PLAINTEXT
listener.name.secured.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.secured.plain.sasl.jaas.config={plain} user_{USER}=\"{PASSWORD}\";
listener.name.secured.scram-sha-256.sasl.jaas.config={scram};
listener.name.secured.scram-sha-512.sasl.jaas.config={scram};
listener.name.secured.ssl.keystore.type=PKCS12
listener.name.secured.ssl.keystore.location={keys}
listener.name.secured.ssl.keystore.password={PASSWORD}
"
    )
}

/// How the known user is written into the data folder.
pub(crate) fn format_arguments() -> Vec<String> {
    let scram = |hash: &str| ["--add-scram".to_owned(), format!("{hash}=[name={USER},password={PASSWORD}]")];
    ["SCRAM-SHA-256", "SCRAM-SHA-512"].into_iter().flat_map(scram).collect()
}
