//! Whom TLS trusts.
//!
//! The operating system's certificates, which an operator can add to (and SSL_CERT_FILE and SSL_CERT_DIR name others); where
//! there are none, as in an empty container, Mozilla's list as it was when Moontide was built.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

/// How connections are secured.
///
/// # Errors
/// When the cryptography of this build has no TLS that anybody speaks, which would be a defect here.
pub(super) fn tls() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots()).with_no_client_auth())
}

fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (trusted, _) = roots.add_parsable_certificates(found.certs);
    if trusted > 0 {
        tracing::debug!(trusted, "calls trust the certificates of this system");
        return roots;
    }
    let why = found.errors.first().map_or("there are none".to_owned(), ToString::to_string);
    tracing::warn!(
        "calls trust Mozilla's list of certificates, as of this build: those of this system cannot be had ({why})"
    );
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    roots
}
