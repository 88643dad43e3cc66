//! TLS: rustls with ring, trusting Mozilla's roots and the machine's own (a company's proxy, say). Read at the first need,
//! since reading the machine's takes some 10 ms and most hosts' first minutes need none.

use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// See the module.
#[derive(Default)]
pub(crate) struct Tls {
    connector: OnceLock<TlsConnector>,
}

impl Tls {
    /// Blocks for a moment at its first call.
    pub(crate) fn connector(&self) -> &TlsConnector {
        self.connector.get_or_init(|| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("ring provides the cipher suites of TLS 1.2 and 1.3")
                .with_root_certificates(roots())
                .with_no_client_auth();
            TlsConnector::from(Arc::new(config))
        })
    }
}

fn roots() -> RootCertStore {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some of the machine's root certificates cannot be read");
    }
    roots.add_parsable_certificates(found.certs);
    roots
}
